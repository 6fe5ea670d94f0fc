"""What commands share: options, the panels of --help, and what a shell completes."""

from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from mtanimate.reading import MAX_PIXELS as _MAX_PIXELS

if TYPE_CHECKING:
    from mtanimate.cluster.connection import ClusterOptions

# The panels of --help, in the order in which commands show them.
FILES = "Input and output"
FRAMING = "Framing"
MOTION = "Motion"
ENCODING = "Encoding"
HARDWARE = "Hardware"
CHECKING = "Checking and reporting"


def without_types(params: list[Any]) -> list[Any]:
    """The parameters, with no type shown for switches: Typer would show <bool>."""
    for param in params:
        if getattr(param, "is_flag", False):
            param.metavar = ""
    return params


class Command(TyperCommand):
    """A command that shows --help in the last panel, not before the others."""

    def get_params(self, ctx: Any) -> list[Any]:
        params = without_types(super().get_params(ctx))
        for param in params:
            if param.name == "help":
                param.rich_help_panel = CHECKING
        return params


class Precision(str, Enum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class Backend(str, Enum):
    auto = "auto"
    torch = "torch"
    onnx = "onnx"
    openvino = "openvino"


class Mode(str, Enum):
    relative = "relative"
    absolute = "absolute"
    avd = "avd"


class Estimator(str, Enum):
    motion_transformer = "motion-transformer"
    fomm = "fomm"
    mraa = "mraa"
    monkey_net = "monkey-net"
    tpsmm = "tpsmm"


Completion = Callable[[str], list[str]]


def one_of(*words: str) -> Completion:
    """Completes these words; the option may take others, too."""

    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def checkpoints_here(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of checkpoints that are on this machine, each with what it animates."""
    from mtanimate.checkpoints.registry import entries, imported

    known, here = entries(), imported()
    names = {"default": "the one that ships"}
    names |= {name: entry.animates for name, entry in known.items() if entry.file is not None or name in here}
    names |= {name: "imported" for name in here if name not in known}
    return (item for item in names.items() if item[0].startswith(incomplete))


def published_checkpoints(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of checkpoints that can be downloaded, each with what it animates."""
    from mtanimate.checkpoints.registry import entries

    return ((name, entry.animates) for name, entry in entries().items() if entry.urls and name.startswith(incomplete))


def known_checkpoints(incomplete: str) -> Iterator[tuple[str, str]]:
    """Names of all checkpoints, each with what it animates."""
    from mtanimate.checkpoints.registry import entries

    here = dict(checkpoints_here(incomplete))
    known = {name: entry.animates for name, entry in entries().items() if name.startswith(incomplete)}
    yield from (here | known).items()


def presets(incomplete: str) -> list[str]:
    """Names of presets."""
    from mtanimate.config import preset_names

    return one_of(*preset_names())(incomplete)


def checkpoint_option(help: str = "A name from 'mtanimate checkpoints list', or a .safetensors file.") -> Any:
    return typer.Option("default", metavar="NAME", help=help, autocompletion=checkpoints_here, rich_help_panel=FILES)


def overwrite_option(help: str = "Replace an existing --out.") -> Any:
    return typer.Option(False, "--overwrite", help=help, rich_help_panel=FILES)


def crop_option(of: str) -> Any:
    return typer.Option(
        "auto",
        metavar="CROP",
        help=f"How the {of} is cropped: auto (around the face), none (centred square), or X,Y,W,H.",
        autocompletion=one_of("auto", "none"),
        rich_help_panel=FRAMING,
    )


def face_option(help: str, *words: str) -> Any:
    return typer.Option(
        "largest", metavar="FACE", help=help, autocompletion=one_of("largest", *words), rich_help_panel=FRAMING
    )


DRIVING_CROP = typer.Option(
    "auto",
    metavar="CROP",
    help="The same for the driving video.",
    autocompletion=one_of("auto", "none"),
    rich_help_panel=FRAMING,
)
ONE_FACE = face_option("Which face of the picture: largest, or its number from the left.")
DEVICE = typer.Option(
    "auto",
    metavar="DEVICE",
    help="auto, cpu, cuda, cuda:N or mps.",
    autocompletion=one_of("auto", "cpu", "cuda", "mps"),
    rich_help_panel=HARDWARE,
)
PRECISION = typer.Option(
    Precision.auto, metavar="auto|fp32|bf16|fp16", help="Number format of the network.", rich_help_panel=HARDWARE
)
BACKEND = typer.Option(
    Backend.auto,
    metavar="auto|torch|onnx|openvino",
    help="What runs the network: auto is the installed export's if that is faster, or an exported folder's own.",
    rich_help_panel=HARDWARE,
)
MAX_PIXELS = typer.Option(
    _MAX_PIXELS, metavar="N", min=1, help="Refuse larger pictures and frames.", rich_help_panel=CHECKING
)
JSON = typer.Option(False, "--json", help="Print the result as one JSON object.", rich_help_panel=CHECKING)
QUIET = typer.Option(False, "--quiet", help="Show no progress and no remarks.", rich_help_panel=CHECKING)
DEBUG = typer.Option(False, "--debug", help="Show a traceback when something fails.", rich_help_panel=CHECKING)


CLUSTER: str | None = typer.Option(
    None,
    metavar="ADDRESS",
    help="Share the work among the machines of a Ray cluster: local, auto, or HOST:PORT.",
    autocompletion=one_of("local", "auto"),
    rich_help_panel=HARDWARE,
)
CORES: int | None = typer.Option(
    None,
    metavar="N",
    min=1,
    help="With --cluster: CPU cores of each worker.",
    show_default="2; 1 beside a GPU",
    rich_help_panel=HARDWARE,
)


def cluster_options(cluster: str | None, cores: int | None) -> "ClusterOptions | None":
    """What --cluster and --cores ask for. Raises InputError for --cores alone."""
    from mtanimate.cluster.connection import ClusterOptions
    from mtanimate.errors import InputError

    if cluster is None and cores is not None:
        raise InputError("--cores goes with --cluster, whose workers it is for")
    return None if cluster is None else ClusterOptions(cluster, cores)
