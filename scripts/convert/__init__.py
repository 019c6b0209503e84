"""Turn a weights file of another program into one for --weights: `python -m scripts.convert model.pth`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from common.network.weights import Checkpoint
    from scripts.cli.options import ConvertOptions

PREPROCESSING = ("image_size", "resize_size", "resize", "channel_order", "scale", "mean", "std")
DEFAULT = "safetensors"


def main(arguments: list[str]) -> int:
    """Convert the file, say what was found, and return the exit code."""
    import tyro

    from scripts.cli.options import ConvertOptions

    options = tyro.cli(ConvertOptions, prog="python -m scripts.convert", args=arguments)
    from common.network.conversion.convert import convert
    from common.network.conversion.kinds import kind_of
    from common.network.conversion.metadata import Wishes, describe
    from common.network.weights import Checkpoint
    from common.system.files import user_path
    from scripts.cli.display import console
    from scripts.convert import account, processes

    for name in ("file", "output", "metadata_from", "class_names"):
        if (typed := getattr(options, name)) is not None:
            setattr(options, name, user_path("FILE" if name == "file" else f"--{name.replace('_', '-')}", str(typed)))
    output = checked_output(options)
    kind = kind_of(options.file)
    stored = processes.read(options.file, kind)
    conversion = convert(stored, options.file, options.prefix)
    given = {name: value for name in PREPROCESSING if (value := getattr(options, name)) is not None}
    header, notes = describe(
        conversion, stored, options.file, Wishes(given, options.metadata_from, options.class_names)
    )
    if options.to != DEFAULT:
        processes.check_writable(options.to, header)
    # Before anything is printed, so that a reader who leaves early (`| head`) does not end it.
    write(options, output, Checkpoint(header, conversion.arrays))
    for line in [*account.lines(options.file, kind, len(stored.tensors), conversion), *notes]:
        console.print(line, soft_wrap=True)
    use = f"; use it: --weights {output}{account.model_option(header.architecture)}" if options.to == DEFAULT else ""
    console.print(f"written: {output}{use}", soft_wrap=True)
    return 0


def checked_output(options: ConvertOptions) -> Path:
    """Return the file to write.

    Args:
        options: The options of the command.

    Returns:
        Its path, by default `weights` in the working folder with the ending of what is written.

    Raises:
        UserError: It is there already and may not be replaced, or its name has another ending.
    """
    from pathlib import Path

    from common.network.conversion.kinds import FILE_SUFFIX
    from common.system.errors import UserError
    from scripts.convert.processes import FRAMEWORKS

    suffix = ".safetensors" if options.to == DEFAULT else FILE_SUFFIX[FRAMEWORKS[options.to]]
    output = options.output or Path(f"weights{suffix}")
    if not output.name.endswith(suffix):
        other = next((f for f, backend in FRAMEWORKS.items() if output.name.endswith(FILE_SUFFIX[backend])), None)
        hint = f", or --to {other}" if other else ""
        raise UserError(f"--output {output}: expected a name that ends in {suffix}{hint}")
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder")
    if output.exists() and options.file.exists() and output.samefile(options.file):
        raise UserError(f"--output {output}: is the file to convert; choose another name")
    if output.exists() and not options.overwrite:
        raise UserError(f"--output {output}: is there already; --overwrite replaces it")
    return output


def write(options: ConvertOptions, output: Path, checkpoint: Checkpoint) -> None:
    """Write the converted file, so that it is whole or not there.

    Args:
        options: The options of the command.
        output: The file.
        checkpoint: What to write.

    Raises:
        UserError: It cannot be written.
    """
    from common.network import weights
    from common.system.errors import UserError
    from scripts.convert import processes

    try:
        if options.to == DEFAULT:
            weights.write(output, checkpoint)
        else:
            processes.write(output, options.to, checkpoint)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written: {error.strerror or error}") from error
