"""Stand-ins for what a checkpoint holds beside tensors, so that it loads without any code of it being run.

torch reads a checkpoint with an unpickler that makes nothing but tensors, plain values and the classes that it is given
by name. Here an inert class is made for every other name that a file asks for: a Namespace, a Path or somebody's config
then loads as an object without content. A file that *calls* something else than the few names below is refused.
"""
import pickletools
import re
from collections import OrderedDict

from utils.numpy_pickle import ExtraArray, ExtraDtype, Maker, Refused, empty_extra_array, extra_scalar, no_bytes

# plain things that a pickle makes by a call; nothing is called for them either
CALLED = re.compile(r"pathlib(\._local)?\.\w+|datetime\.\w+|numpy\.random\..+|random\.Random|types\.SimpleNamespace|"
                    r"collections\.(defaultdict|deque)|builtins\.(set|frozenset|complex|bytearray|slice|range|type)|"
                    r"functools\.(partial|reduce)|_?operator\.(getitem|or_)|types\.GenericAlias|numpy\.ma\.core\._mareconstruct|"
                    r"decimal\.Decimal|fractions\.Fraction|uuid\.UUID|torch\.(_C\.)?Generator")

# arrays and scalars of numpy, among metrics for one, keep their values. The last names cannot be asked for: torch looks
# there for the types of objects whose state it may set
NUMPY = [(Maker(empty_extra_array), f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
NUMPY += [(Maker(extra_scalar), f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
NUMPY += [(ExtraDtype, "numpy.dtype"), ("ndarray", "numpy.ndarray"), (Maker(no_bytes), "builtins.bytes"),
          (ExtraArray, "an array")]
OWN = {name for _, name in NUMPY}


class _Inert(type):
    """The class of stand-ins: ``asked_for`` is the name in the file, ``called`` whether it may be called."""

    def __call__(cls, *args, **kwargs):
        if not cls.called:
            raise Refused(f"it calls {cls.asked_for}, and no code of a file is run: write its state dict alone")
        return cls.__new__(cls)


class StandIn(metaclass=_Inert):
    """An object of a class that is not known here, without content."""

    __slots__ = ()
    asked_for, called = "", False

    def __new__(cls, *args):
        return object.__new__(cls)

    def __setstate__(self, state):
        pass

    def __repr__(self):
        return f"<stand-in for a {self.asked_for}>"


class _DictStandIn(StandIn):
    """Of a class like dict or EasyDict: the items are kept, as plain ones."""

    __slots__ = ()

    def __new__(cls, *args):
        return OrderedDict()


class _ListStandIn(StandIn):
    """Of a class like list: the items are kept, as plain ones."""

    __slots__ = ()

    def __new__(cls, *args):
        return []


def stand_ins(file) -> list[tuple]:
    """Return (class, name) of a stand-in for every name that the pickles in ``file`` ask for."""
    made = []
    for name, filled in survey(file).items():
        if name in OWN:
            continue
        base = {"dict": _DictStandIn, "list": _ListStandIn}.get(filled, StandIn)
        known = {"__slots__": (), "asked_for": name, "called": CALLED.fullmatch(name) is not None}
        made.append((type(base)(name, (base,), known), name))
    return made


def survey(file) -> dict[str, str | None]:
    """Return the names that the pickles in ``file`` ask for → ``dict`` or ``list`` where their objects get items.

    The opcodes are followed, none is obeyed: the stack holds the names that objects come from, or None.
    """
    filled = {}
    try:
        while True:
            _follow(file, filled)
    except (ValueError, IndexError, KeyError, AttributeError):  # the end, or no pickle; torch says what is wrong
        return filled


def _follow(file, filled):
    stack, memo = [], {}
    for opcode, argument, _ in pickletools.genops(file):
        before, after = opcode.stack_before, opcode.stack_after
        if opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
            continue
        if opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[argument] = stack[-1]
            continue
        taken = len(before)
        if pickletools.markobject in before:
            place = len(stack) - 1 - stack[::-1].index(pickletools.markobject)
            taken = len(stack) - place + before.index(pickletools.markobject)
        first = stack[-taken] if taken else None  # what is made from, called, filled or given a state
        del stack[len(stack) - taken:]
        if opcode.name == "GLOBAL":
            first = _modern(*argument.split(" ", 1))
            filled.setdefault(first, None)
        elif opcode.name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS") and first in filled:
            filled[first] = "dict" if opcode.name.startswith("SET") else "list"
        kept = first if opcode.name in KEEPING else None
        stack += [pickletools.markobject if entry is pickletools.markobject else kept for entry in after]


# opcodes whose result comes from what lies lowest among what they take
KEEPING = ("GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS")


def _modern(module, name):
    """Return the name of Python 3 for one of Python 2, which protocol 2 writes."""
    from torch._utils import IMPORT_MAPPING, NAME_MAPPING

    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f"{module}.{name}"
