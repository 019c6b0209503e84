"""From weights files of other programs to this project's format: kinds of files, names, heads, metadata.

No framework is needed. A backend reads its framework's own files (`read_file`) and gives the tensors under the file's
own names, with a table of the names that it knows; everything else is decided here.
"""
