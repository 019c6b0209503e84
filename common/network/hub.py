"""torchvision's numbers on the Hugging Face Hub, from its cache or its server, with no long wait for a dead network."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

# torchvision's IMAGENET1K_V1 numbers under torchvision's names.
REPOSITORIES = {"resnet18": "timm/resnet18.tv_in1k", "resnet50": "timm/resnet50.tv_in1k"}
FILE = "model.safetensors"
# To connect and to be answered takes at most the first, in seconds; looking a name up knows no limit but the second.
PATIENCE, LONGEST_PATIENCE = 3.0, 5.0
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")

Result = TypeVar("Result")


class HubError(Exception):
    """The Hub could not be asked, or does not have the file; the text says why in a few words."""


def cached(repository: str) -> Path | None:
    """Return the weights file of a repository if the Hub's cache on this machine has it, without using the network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, FILE)
    return Path(found) if isinstance(found, str) else None


def check_reachable(repository: str) -> None:
    """Ask the Hub for a repository's weights file, once and for LONGEST_PATIENCE seconds at most.

    Args:
        repository: The repository, such as `timm/resnet18.tv_in1k`.

    Raises:
        HubError: There is no answer, or it is that there is no such file.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    answers: list[HubError | None] = []

    def ask() -> None:
        try:
            url = hf_hub_url(repository, FILE, endpoint=endpoint())
            _said_plainly(lambda: get_hf_file_metadata(url, timeout=PATIENCE, endpoint=endpoint()))
        except HubError as error:
            answers.append(error)
        else:
            answers.append(None)

    # In a thread of its own, which nobody waits for, since the lookup of a name cannot be ended.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(LONGEST_PATIENCE)
    answer = answers[0] if answers else HubError(f"no answer within {LONGEST_PATIENCE:g} seconds")
    if answer:
        raise answer


def download(repository: str) -> Path:
    """Return the weights file of a repository, downloaded into the Hub's cache unless it is there.

    Args:
        repository: The repository, such as `timm/resnet18.tv_in1k`.

    Returns:
        The file in the cache. Where it cannot be had, HubError passes through.
    """
    from huggingface_hub import hf_hub_download

    return Path(_said_plainly(lambda: hf_hub_download(repository, FILE, endpoint=endpoint())))


def endpoint() -> str | None:
    """Return the address of the Hub or mirror that the environment names, without a slash at its end; None for none.

    Raises:
        HubError: It lacks a scheme, which the Hub's library would answer with a traceback.
    """
    address = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    if address and not address.startswith(("http://", "https://")):
        raise HubError(f"HF_ENDPOINT is {address!r}, without http:// or https:// before it")
    return address or None


def _said_plainly(work: Callable[[], Result]) -> Result:
    """Return what `work` returns, with HubError in the place of all that the Hub's library may raise."""
    try:
        return work()
    except HubError:
        raise
    # The errors of the library that transports for the Hub's, which has changed, are of no common class.
    except Exception as error:
        raise HubError(_root_of(error) + _proxy_hint()) from error


def _root_of(error: BaseException) -> str:
    """Return the first line of the error that is at the root of another."""
    while following := error.__cause__ or error.__context__:
        error = following
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _proxy_hint() -> str:
    """Return a clause on the first proxy that the environment names without a scheme, or nothing."""
    for name in (spelling for proxy in PROXIES for spelling in (proxy, proxy.lower())):
        address = os.environ.get(name, "")
        if address and "://" not in address:
            # What stands before an @ is a password.
            return f"; {name} is {address.rpartition('@')[2]!r}, without http:// before it"
    return ""
