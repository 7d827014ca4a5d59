"""nvcc's code for a kernel (PTX) as C++, which counts the instructions that its warps execute.

    translated(text)    the C++ source of all kernels in a PTX file

A basic block of PTX becomes a case of a switch, a lane's registers a struct. ptx.cpp runs the 32 lanes of a
warp together: of all lanes that can go on, those at the earliest block go first, so that lanes which took
different branches meet again where the code does. What is counted is stated at `weight`.
"""

import re
import subprocess
from dataclasses import dataclass, field

FLOATS = {"f32": "float", "f64": "double"}
BITS = {"b": "uint{}_t", "u": "uint{}_t", "s": "int{}_t"}
REGISTERS = {"p": "bool", "rs": "uint16_t", "r": "uint32_t", "rd": "uint64_t", "f": "float", "fd": "double"}
SPECIAL = {
    "%tid.x": "t.thread",
    "%ctaid.x": "c.block_x",
    "%ctaid.y": "c.block_y",
    "%ctaid.z": "c.block_z",
}
FREE = ("mov", "cvta", "ret")
SEQUENCES = {"div.s32": 22, "div.u32": 18, "rem.s32": 24, "rem.u32": 20, "div.s64": 90, "div.u64": 80}
DOUBLED = ("add", "sub", "neg", "and", "or", "xor", "not", "shl", "shr", "min", "max", "selp", "setp")


KINDS = {"meeting": "bar.warp", "barrier": "bar", "vote": "vote"}
"""What lanes do at the end of a block of code: meet those of their warp, of their block, vote."""


@dataclass
class Instruction:
    """One of PTX: `@%p1 opcode operands`."""

    predicate: str | None
    opcode: str
    operands: list[str]


@dataclass
class Block:
    """Instructions that are executed together; `kind` says what lanes do at its end."""

    number: int
    instructions: list[Instruction] = field(default_factory=list)
    kind: str = "plain"  # or one of KINDS


def weight(instruction: Instruction) -> int:
    """Issue slots that an instruction of PTX takes on a card, as nvcc's assembler usually makes them.

    One, but: nothing for moves, conversions of addresses and between integers of up to 32 bits, and for
    arguments, which are operands of other instructions; two for 64-bit integers, which have two halves; for
    divisions the length of the sequence that stands for them.
    """
    name, *rest = instruction.opcode.split(".")
    kind = rest[-1] if rest else ""
    if name in FREE or instruction.opcode.startswith("ld.param"):
        return 0
    if f"{name}.{kind}" in SEQUENCES:
        return SEQUENCES[f"{name}.{kind}"]
    if name == "div":
        return 10  # IEEE division by its fast path
    if name == "cvt":
        return 1 if {"f32", "f64"} & set(rest) else 1 if "64" in rest[0] else 0
    if kind.endswith("64") and kind not in FLOATS:
        return 4 if name == "mul" and "lo" in rest else 2 if name in DOUBLED else 1
    return 1


def kernels(text: str) -> dict[str, str]:
    """The bodies of all kernels by the names that C++ gives them, without namespace: `rank_kernel<float>`."""
    found = dict(re.findall(r"\.entry (\w+)\([^)]*\)[^{]*\{(.*?)\n\}", text, re.DOTALL))
    done = subprocess.run(["c++filt", *found], capture_output=True, text=True, check=True)
    plain = (re.sub(r"^void |\(.*|dsa::", "", name) for name in done.stdout.splitlines())
    return dict(zip(plain, found.values()))


def blocks_of(body: str) -> tuple[list[Block], dict[str, int]]:
    """A kernel's basic blocks, and which one each label begins."""
    blocks, labels = [Block(0)], {}

    def new() -> None:
        if blocks[-1].instructions:
            blocks.append(Block(len(blocks)))

    for line in re.sub(r"//.*", "", body).split("\n"):
        line = line.strip()
        if line.startswith("$") and line.endswith(":"):
            new()
            labels[line[:-1]] = blocks[-1].number
        elif line and not line.startswith((".", "{", "}")):
            found = re.fullmatch(r"(?:@(!?%p\d+)\s+)?([\w.]+)\s*(.*);", line)
            if found is None:
                raise SyntaxError(f"not an instruction of PTX: {line}")
            operands = re.findall(r"\{[^}]*\}|\[[^]]*\]|[^\s,{}\[\]]+", found[3])
            instruction = Instruction(found[1], found[2], operands)
            kind = next((x for x, start in KINDS.items() if found[2].startswith(start)), "plain")
            if kind in ("vote", "meeting"):
                new()
            blocks[-1].instructions.append(instruction)
            blocks[-1].kind = kind
            if kind != "plain" or found[2].startswith(("bra", "ret")):
                new()
    if not blocks[-1].instructions:
        labels = {name: min(number, len(blocks) - 1) for name, number in labels.items()}
        blocks[-1].instructions.append(Instruction(None, "ret", []))
    return blocks, labels


def c_type(kind: str) -> str:
    if kind == "pred":
        return "bool"
    return FLOATS.get(kind) or BITS[kind[0]].format(kind[1:])


def register(operand: str) -> str | None:
    """The C++ of a register; None if it is none."""
    found = re.fullmatch(r"%([a-z]+)(\d+)", operand)
    return f"t.{found[1]}[{found[2]}]" if found else None


def value(operand: str, kind: str) -> str:
    """An operand read as a type of PTX."""
    cpp = c_type(kind)
    if own := register(operand):
        return f"get<{cpp}>({own})"
    if operand in SPECIAL:
        return f"{cpp}({SPECIAL[operand]})"
    if found := re.fullmatch(r"0([fd])([0-9A-Fa-f]+)", operand):
        return f"get<{cpp}>(uint{32 if found[1] == 'f' else 64}_t(0x{found[2]}u))"
    if re.fullmatch(r"-?\d+|0x[0-9a-fA-F]+", operand):
        return f"static_cast<{cpp}>({operand}ll)"
    if not re.fullmatch(r"[A-Za-z_]\w+", operand):
        raise SyntaxError(f"not an operand of PTX: {operand}")
    return f"{cpp}(0)"  # shared memory or the arguments: their first address


def address(operand: str) -> str:
    """[register + offset], as a number."""
    base, _, offset = operand.strip("[]").partition("+")
    own = register(base)
    return f"uint64_t({own or 0}) + {offset or 0}ll"


def split(operand: str) -> list[str]:
    return [x.strip() for x in operand.strip("{}").split(",")]


COMPARE = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
}
COMPARE["hs"] = ">="


def compared(how: str, a: str, b: str, kind: str) -> str:
    if kind not in FLOATS:
        return f"{a} {COMPARE[how]} {b}"
    if how in ("num", "nan"):
        return f"{'!' if how == 'num' else ''}unordered({a}, {b})"
    if how.endswith("u") and how[:-1] in COMPARE:  # true if one is not a number
        return f"unordered({a}, {b}) || {a} {COMPARE[how[:-1]]} {b}"
    return f"!unordered({a}, {b}) && {a} {COMPARE[how]} {b}"


def moved(instruction: Instruction, space: str, kind: str) -> str:
    """A load or a store of one value or of a vector."""
    loads = instruction.opcode.startswith("ld")
    there, registers = instruction.operands if not loads else instruction.operands[::-1]
    cpp, place = c_type(kind), f"c.{space}({address(there)}, sizeof(T) * n)"
    names = split(registers)
    lines = [f"using T = {cpp}; constexpr int n = {len(names)}; auto* const at = {place};"]
    for k, name in enumerate(names):
        if loads:
            lines.append(f"set({register(name)}, read<T>(at + {k} * sizeof(T)));")
        else:
            lines.append(f"write<T>(at + {k} * sizeof(T), {value(name, kind)});")
    return " ".join(lines)


def computed(instruction: Instruction) -> str:
    """The C++ of an instruction that writes one register."""
    name, *rest = instruction.opcode.split(".")
    to, *given = instruction.operands
    kind = rest[-1] if rest else ""
    if name == "cvt":
        target, source = rest[-2:]
        x = value(given[0], source)
        if target not in FLOATS and source in FLOATS:
            return f"set({register(to)}, truncated<{c_type(target)}>({x}))"
        return f"set({register(to)}, static_cast<{c_type(target)}>({x}))"
    if name == "mov" and (to.startswith("{") or given[0].startswith("{")):
        return packed(to, given[0])
    if name == "setp":
        a, b = (value(x, kind) for x in given[:2])
        return f"{register(to)} = {compared(rest[0], a, b, kind)}"
    if name == "selp":
        chosen, a, b = value(given[2], "pred"), value(given[0], kind), value(given[1], kind)
        return f"set({register(to)}, {chosen} ? {a} : {b})"
    cpp = c_type(kind)
    x = [value(operand, kind) for operand in given]
    if name in ("shl", "shr"):
        return f"set({register(to)}, {name}<{cpp}>({x[0]}, {value(given[1], 'u32')}))"
    if name == "mul" and "wide" in rest:
        return f"set({register(to)}, wide({x[0]}) * wide({x[1]}))"
    if name in ("mul", "mad") and "hi" in rest:
        product = f"static_cast<{cpp}>(wide({x[0]}) * wide({x[1]}) >> {8 * (int(kind[1:]) // 8)})"
        return f"set({register(to)}, {product}{f' + {x[2]}' if name == 'mad' else ''})"
    if name == "mad" and "wide" in rest:
        twice = {"s32": "s64", "u32": "u64"}[kind]
        return f"set({register(to)}, wide({x[0]}) * wide({x[1]}) + {value(given[2], twice)})"
    functions = {
        "min": "least",
        "max": "most",
        "prmt": "prmt",
        "bfi": "bfi",
        "shf": "funnel_left",
        "fma": "fused",
    }
    if name in functions:
        return f"set({register(to)}, {functions[name]}({', '.join(x)}))"
    plain = {
        "mov": "{0}",
        "cvta": "{0}",
        "add": "{0} + {1}",
        "sub": "{0} - {1}",
        "mul": "{0} * {1}",
        "mad": "{0} * {1} + {2}",
        "div": "{0} / {1}",
        "rem": "{0} % {1}",
        "and": "{0} & {1}",
        "or": "{0} | {1}",
        "xor": "{0} ^ {1}",
        "popc": "__builtin_popcountll({0})",
        "bfind": "({0} ? leading_zeros({0}) : ~0u)" if "shiftamt" in rest else "",
        "clz": "leading_zeros({0})",
        "brev": "reversed_bits({0})",
        "not": "!{0}" if kind == "pred" else "~{0}",
        "neg": "-{0}",
        "abs": "absolute({0})",
    }
    if not plain.get(name):
        raise SyntaxError(f"no C++ for PTX's {instruction.opcode}")
    # Unsigned, so that nothing overflows; the low half is the same.
    wraps = kind[0] == "s" and name in ("add", "sub", "mul", "mad", "neg")
    operands = [f"static_cast<u{cpp}>({y})" if wraps else y for y in x]
    return f"set({register(to)}, static_cast<{cpp}>({plain[name].format(*operands)}))"


def packed(to: str, given: str) -> str:
    """mov between one register and the vector of its parts."""
    if to.startswith("{"):
        names = [register(name) for name in split(to)]
        shifted = (f"{register(given)} >> {k} * 8 * sizeof({name})" for k, name in enumerate(names))
        return " ".join(f"set({name}, low_bits({bits}, {name}));" for name, bits in zip(names, shifted))
    parts = " | ".join(
        f"uint64_t(unsigned_of({register(name)})) << {k} * 8 * sizeof({register(name)})"
        for k, name in enumerate(split(given))
    )
    return f"set({register(to)}, {parts})"


def statement(instruction: Instruction, labels: dict[str, int], following: int) -> str:
    name, *rest = instruction.opcode.split(".")
    if name == "bra":
        text = f"return {labels[instruction.operands[0]]};"
    elif name == "ret":
        text = "return -1;"
    elif name == "bar":
        text = f"return {following};"
    elif name == "vote":
        to, chosen, _ = instruction.operands
        text = f"t.vote = {value(chosen, 'pred')}, t.ballot = &{register(to)}; return {following};"
    elif name in ("ld", "st"):
        text = moved(instruction, rest[0], rest[-1])
    elif name in ("atom", "red"):
        to, there, given = [None, *instruction.operands][-3:]
        cpp, how = c_type(rest[-1]), {"max": "most", "min": "least", "add": "added"}[rest[-2]]
        text = f"using T = {cpp}; auto* const at = c.shared({address(there)}, sizeof(T));"
        text += " const T old = read<T>(at);"
        text += f" write<T>(at, {how}(old, {value(given, rest[-1])}));"
        text += f" set({register(to)}, old);" if to else ""
    else:
        text = computed(instruction) + ";"
    if instruction.predicate:
        sign = "!" if instruction.predicate.startswith("!") else ""
        return f"if ({sign}{register(instruction.predicate.lstrip('!'))}) {{ {text} }}"
    return f"{{ {text} }}"


def translated_kernel(name: str, body: str, number: int) -> str:
    blocks, labels = blocks_of(body)
    declared = re.findall(r"\.reg \.\w+\s+%(\w+)<(\d+)>", body)
    fields = "".join(f"  {REGISTERS[kind]} {kind}[{count}];\n" for kind, count in declared)
    cases = []
    for block in blocks:
        following = block.number + 1
        lines = [statement(x, labels, following) for x in block.instructions]
        cases.append(
            f"    case {block.number}:\n      " + "\n      ".join(lines) + f"\n      return {following};"
        )
    weights = ", ".join(str(sum(map(weight, block.instructions))) for block in blocks)
    kinds = ", ".join(f"Kind::{block.kind}" for block in blocks)
    return f"""
struct Lane{number} : Lane {{
{fields}}};
int step{number}(Lane& lane, const Block& c) {{
  Lane{number}& t = static_cast<Lane{number}&>(lane);
  switch (t.at) {{
{chr(10).join(cases)}
  }}
  return -1;
}}
const int weights{number}[] = {{{weights}}};
const Kind kinds{number}[] = {{{kinds}}};
const Kernel kernel{number}("{name}", &step{number}, weights{number}, kinds{number}, sizeof(Lane{number}));
"""


def translated(text: str) -> str:
    """The C++ source of all kernels of a PTX file.

    Raises:
        SyntaxError: an instruction that this file does not know.
    """
    parts = [translated_kernel(name, body, k) for k, (name, body) in enumerate(kernels(text).items())]
    return (
        '#include "ptx.h"\n\nnamespace ptx {\nnamespace {\n'
        + "".join(parts)
        + "\n}  // namespace\n}  // namespace ptx\n"
    )
