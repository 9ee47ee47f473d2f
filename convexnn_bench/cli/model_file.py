"""Check what kind of file MODEL is, before torch is imported.

The first bytes and the list of contents show it.

Nothing is loaded here. A file that cannot hold a state dict is refused within a fraction of a second, with advice.
`load_state` reads any other file.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from convexnn_bench.errors import InputError

SAVE = "run torch.save(model.state_dict(), path) where the network's class can be imported"
KERAS = (
    "a Keras model. Its biases have no weight decay unless bias_regularizer is set, and certify reads networks of torch"
)
# The modules whose names occur in the pickle of a state dict. Any other name is code of a class that is not loaded.
PLAIN = ("torch", "torch._utils", "torch.storage", "torch.serialization", "torch._tensor", "torch.nn.parameter")
PLAIN_ELSEWHERE = ("collections", "_codecs", "numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.dtypes")
DATA_SUFFIXES = (".csv", ".data", ".txt", ".tsv", ".npz", ".npy")  # suffixes of DATA
OPCODES = 100_000  # opcodes of a pickle that are examined; a state dict of two layers has some dozens
LEGACY_PICKLES = 5  # torch.save without a zip file writes a magic number, a version, the system, the object, and keys
EXPANSION = 2.0  # largest ratio of contents to file size: torch does not compress, so that it is about one


def check_arguments(model: str, data: str) -> None:
    """Raise InputError if MODEL or DATA is missing, of another kind, or in the wrong position."""
    plain = not data.startswith("file[")
    if (model.startswith("file[") or _is_data(model)) and plain and not _is_data(data):
        raise InputError(f"MODEL and DATA are in the wrong order: convexnn-bench certify {data} {model}")
    check_model_file(model)
    if plain and not Path(data).expanduser().is_file():
        raise InputError(f"DATA: there is no file {data!r} (looked in {Path.cwd()})")


def _is_data(path: str) -> bool:
    return Path(path).suffix.lower() in DATA_SUFFIXES


def check_model_file(path: str) -> None:
    """Raise InputError, with the kind of file and advice, if the file cannot hold a state dict of torch."""
    file = Path(path)
    if file.is_dir():
        raise InputError(f"MODEL: {path} is a folder, where a file of torch.save(model.state_dict(), path) is expected")
    if not file.is_file():
        raise InputError(f"MODEL: there is no file {str(path)!r} (looked in {Path.cwd()})")
    with file.open("rb") as stream:
        start = stream.read(16)
    if start.startswith(b"PK"):
        _check_archive(path)
    elif start.startswith(b"\x80"):
        with file.open("rb") as stream:
            _check_pickle(path, stream, LEGACY_PICKLES)
    else:
        raise InputError(f"{path} is {_kind(start)}: {SAVE}")


def _kind(start: bytes) -> str:
    if not start:
        return "an empty file"
    if start.startswith(b"\x89HDF"):
        return f"an HDF5 file, as Keras writes, and no file of torch.save; if it is {KERAS}"
    if len(start) > 8 and start[8:9] == b"{":
        return "a safetensors file, and no file of torch.save; load it with safetensors.torch.load_file and"
    if start.startswith(b"\x93NUMPY"):
        return "an array of numpy (are MODEL and DATA in the right order?)"
    return "no file of torch.save, or damaged"


def _check_archive(path: str) -> None:
    """Check the zip file that torch.save writes, without reading its tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            contents = archive.infolist()
            names = [entry.filename for entry in contents]
            # An archive that lists the same bytes many times, or compressed zeros, may need any amount of memory.
            if sum(entry.file_size for entry in contents) > EXPANSION * Path(path).stat().st_size + 4096:
                raise InputError(f"{path} claims to hold more than its size, as no file of torch.save does: {SAVE}")
            if any(name.endswith(".npy") for name in names):
                raise InputError(f"{path} is an .npz file of arrays: are MODEL and DATA in the right order?")
            if any(name.endswith("weights.h5") for name in names):
                raise InputError(f"{path} is {KERAS}")
            if any(name.endswith("constants.pkl") for name in names):
                raise InputError(
                    f"{path} is a TorchScript archive (torch.jit.save), which is code; save its weights with "
                    "torch.save(torch.jit.load(path).state_dict(), other_path) if you trust it"
                )
            pickled = next((name for name in names if name.rsplit("/", 1)[-1] == "data.pkl"), None)
            if pickled is None:
                raise InputError(f"{path} is a zip file that torch.save did not write: {SAVE}")
            with archive.open(pickled) as stream:
                _check_pickle(path, stream, 1)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}") from error


def _check_pickle(path: str, stream: IO[bytes], pickles: int) -> None:
    """Raise InputError if the opcodes of a pickle call the code of a class.

    The pickle is not run.
    """
    called: list[str] = []
    try:
        for _ in range(pickles):
            called += _called(stream)
    except Exception as error:  # pickletools raises many kinds of errors for damaged files
        # A pickle that torch did not write ends after its first object, by which it is judged.
        if pickles == 1 or not called:
            raise InputError(f"{path} is damaged, or no file of torch.save: {SAVE}") from error
    foreign = [name for name in called if name.rpartition(".")[0] not in PLAIN + PLAIN_ELSEWHERE]
    if not foreign:
        return
    if any(name.startswith("torch.nn.modules.") for name in called):
        raise InputError(
            f"{path} holds a whole module ({foreign[0]}), which only its own code can load: {SAVE}, and certify that "
            "file"
        )
    raise InputError(
        f"{path} holds an object of {foreign[0]}; nothing but tensors and plain containers is loaded, since an object "
        f"may run code: {SAVE}, and certify that file"
    )


def _called(stream: IO[bytes]) -> Iterator[str]:
    """Yield the dotted names that one pickle imports."""
    strings: list[str] = []  # in the order in which the pickle pushes them on the stack
    memo: dict[int, str] = {}
    fresh = ""  # the value of the last opcode, where that is a string
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name, text = opcode.name, argument if isinstance(argument, str) else ""
        if name in ("GLOBAL", "INST"):
            yield text.replace(" ", ".")
        elif name == "STACK_GLOBAL":
            yield ".".join(strings[-2:])
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            memo[argument if isinstance(argument, int) else len(memo)] = fresh
        elif name in ("BINGET", "LONG_BINGET"):
            text = memo.get(argument, "") if isinstance(argument, int) else ""
        if text and name not in ("GLOBAL", "INST"):
            strings.append(text)
        fresh = text
        if count >= OPCODES:
            return
