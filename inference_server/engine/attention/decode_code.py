"""LLVM code of attention for decode tokens over a bfloat16 cache; `decode_kernel.py` compiles and calls it.

Two neighbouring bfloat16 numbers are read as one word: shifted it is the float32 of the first, masked that of the
second, so even and odd places of a head are summed apart and nothing is shuffled. Sums are float32, and their order
depends on the sequence's length alone: neither on what else is computed nor on where its blocks lie.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llvmlite import ir

ARGUMENTS = (
    "next_item", "next_thread", "keys", "values", "query", "seen", "table", "scratch", "item_count", "table_width",
    "score_width", "head_words",
)  # fmt: skip
LANES = 16  # as many scores are made probabilities at once
_TOGETHER = 4  # keys that share a load of the query
_BIT32, _BIT64, _FLOAT, _ADDRESS = ir.IntType(32), ir.IntType(64), ir.FloatType(), ir.PointerType()


class DecodeCode:
    """A module with one function, `decode`, that every thread of a team runs: it takes items until none are left.

    An item is one key head of one sequence, with the `group` query heads that share it. The function's argument is the
    place of 64-bit numbers, ARGUMENTS by name, addresses among them. Rows of the table: the sequence's row among the
    queries, its count of keys, its blocks. Scratch: group * (2 * head_size + score_width) floats for each thread.
    """

    def __init__(self, key_heads: int, group: int, head_size: int, block_size: int) -> None:
        self._key_heads, self._group, self._block_size = key_heads, group, block_size
        self._half = head_size // 2  # words of a head
        self._width = math.gcd(self._half, 16)
        self._word_vector, self._vector = (ir.VectorType(kind, self._width) for kind in (_BIT32, _FLOAT))
        self.module = ir.Module()
        function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_ADDRESS]), "decode")
        self._build = ir.IRBuilder(function.append_basic_block())
        self._top, self._sum = (self._build.alloca(ir.VectorType(_FLOAT, LANES)) for _ in range(2))
        self._emit(function.args[0])
        self._build.ret_void()

    def _emit(self, arguments: ir.Value) -> None:
        build = self._build
        places = {name: self._at(arguments, _BIT64, index) for index, name in enumerate(ARGUMENTS)}
        given = {name: build.load(place, typ=_BIT64) for name, place in places.items()}
        names = ("keys", "values", "query", "seen", "table", "scratch")
        keys, values, query, seen, table, scratch = (build.inttoptr(given[name], _ADDRESS) for name in names)
        group, half, heads = self._group, self._half, _BIT64(self._key_heads)
        score_width = given["score_width"]
        floats = build.mul(_BIT64(group), build.add(score_width, _BIT64(4 * half)))
        thread = build.atomic_rmw("add", places["next_thread"], _BIT64(1), "monotonic")
        wide = self._at(scratch, _FLOAT, build.mul(thread, floats))  # the queries, even places before odd ones
        sums = self._at(wide, _FLOAT, 2 * half * group)
        scores = [self._at(sums, _FLOAT, build.add(_BIT64(2 * half * group), build.mul(score_width, _BIT64(g))))
                  for g in range(group)]  # fmt: skip

        def take() -> ir.Value:
            return build.atomic_rmw("add", places["next_item"], _BIT64(1), "monotonic")

        with self._loop(take(), given["item_count"], take) as item:
            head = build.urem(item, heads)
            row = self._at(table, _BIT32, build.mul(build.udiv(item, heads), given["table_width"]))
            index, count = (build.zext(build.load(self._at(row, _BIT32, n), typ=_BIT32), _BIT64) for n in range(2))
            blocks = self._at(row, _BIT32, 2)
            own = build.mul(build.add(build.mul(index, heads), head), _BIT64(group * half))
            offset = build.mul(head, given["head_words"])
            self._widen(self._at(query, _BIT32, own), wide, sums)
            own_keys, own_values = (self._at(part, _BIT32, offset) for part in (keys, values))
            self._over_keys(count, own_keys, blocks, lambda *place: self._score(wide, scores, *place))
            totals = [self._make_probabilities(line, count) for line in scores]
            self._over_keys(count, own_values, blocks, lambda *place: self._add(sums, scores, *place))
            self._store(sums, totals, self._at(seen, _BIT32, own))

    def _widen(self, query: ir.Value, wide: ir.Value, sums: ir.Value) -> None:
        scale = self._splat(_FLOAT((2 * self._half) ** -0.5))
        for g, at in self._parts():
            for side, part in enumerate(self._halves(query, g * self._half + at)):
                place = (2 * g + side) * self._half + at
                self._put(self._build.fmul(part, scale), wide, place)
                self._put(self._vector([0.0] * self._width), sums, place)

    def _score(self, wide: ir.Value, scores: list[ir.Value], keys: ir.Value, place: ir.Value, count: int) -> None:
        dots = [[self._vector([0.0] * self._width) for _ in scores] for _ in range(count)]
        for at in range(0, self._half, self._width):
            parts = [self._halves(keys, key * self._half + at) for key in range(count)]
            for g in range(self._group):
                for side in range(2):
                    query = self._get(wide, (2 * g + side) * self._half + at)
                    for key in range(count):
                        dots[key][g] = self._multiply_add(parts[key][side], query, dots[key][g])
        for key in range(count):
            for g, line in enumerate(scores):
                self._build.store(self._total(dots[key][g]), self._at(self._at(line, _FLOAT, place), _FLOAT, key))

    def _add(self, sums: ir.Value, scores: list[ir.Value], values: ir.Value, place: ir.Value, count: int) -> None:
        lines = [self._at(line, _FLOAT, place) for line in scores]
        shares = [[self._splat(self._build.load(self._at(line, _FLOAT, key), typ=_FLOAT)) for key in range(count)]
                  for line in lines]  # fmt: skip
        for at in range(0, self._half, self._width):
            parts = [self._halves(values, key * self._half + at) for key in range(count)]
            for g in range(self._group):
                for side in range(2):
                    so_far = (2 * g + side) * self._half + at
                    total = self._get(sums, so_far)
                    for key in range(count):
                        total = self._multiply_add(parts[key][side], shares[g][key], total)
                    self._put(total, sums, so_far)

    def _make_probabilities(self, scores: ir.Value, count: ir.Value) -> ir.Value:
        """In place, not yet divided by their sum, which it returns. What is not finite stays so."""
        build, vector = self._build, ir.VectorType(_FLOAT, LANES)
        self._put(vector([float("-inf")] * LANES), scores, count)
        build.store(vector([float("-inf")] * LANES), self._top)
        build.store(vector([0.0] * LANES), self._sum)
        with self._loop(_BIT64(0), count, LANES) as index:
            some, top = self._get(scores, index, vector), build.load(self._top, typ=vector)
            build.store(build.select(build.fcmp_ordered(">", some, top), some, top), self._top)
        top = self._splat(self._call("vector.reduce.fmax", _FLOAT, build.load(self._top, typ=vector)), LANES)
        with self._loop(_BIT64(0), count, LANES) as index:
            shares = self._exponential(build.fsub(self._get(scores, index, vector), top))
            self._put(shares, scores, index)
            build.store(build.fadd(build.load(self._sum, typ=vector), shares), self._sum)
        return self._total(build.load(self._sum, typ=vector))

    def _exponential(self, exponent: ir.Value) -> ir.Value:
        """Of numbers that are not above 0: 2 to the whole part by its bits, to the rest by a series (error 1e-7)."""
        build, bits = self._build, ir.VectorType(_BIT32, LANES)
        power = build.fmul(exponent, self._splat(_FLOAT(math.log2(math.e)), LANES))
        least = self._splat(_FLOAT(-126.0), LANES)
        power = build.select(build.fcmp_ordered("<", power, least), least, power)
        whole = self._call("rint", power.type, power)
        rest = build.fsub(power, whole)
        result = self._splat(_FLOAT(0.0), LANES)
        for n in reversed(range(7)):
            term = self._splat(_FLOAT(math.log(2) ** n / math.factorial(n)), LANES)
            result = self._multiply_add(result, rest, term)
        biased = build.add(build.fptosi(whole, bits), bits([127] * LANES))
        return build.fmul(result, build.bitcast(build.shl(biased, bits([23] * LANES)), result.type))

    def _store(self, sums: ir.Value, totals: list[ir.Value], seen: ir.Value) -> None:
        build, kind = self._build, self._word_vector
        for g, at in self._parts():
            rounded = []
            for side in range(2):
                total = self._get(sums, (2 * g + side) * self._half + at)
                word = build.bitcast(build.fdiv(total, self._splat(totals[g])), kind)
                odd = build.and_(build.lshr(word, kind([16] * self._width)), kind([1] * self._width))
                rounded.append(build.add(word, build.add(odd, kind([0x7FFF] * self._width))))  # half to even
            first = build.lshr(rounded[0], kind([16] * self._width))
            second = build.and_(rounded[1], kind([0xFFFF0000] * self._width))
            self._build.store(build.or_(first, second), self._at(seen, _BIT32, g * self._half + at), align=4)

    def _over_keys(
        self, count: ir.Value, base: ir.Value, blocks: ir.Value, emit: Callable[[ir.Value, ir.Value, int], None]
    ) -> None:
        """Emits what is done with each key: several at once as far as they go, none of them over a block's end."""
        build, size = self._build, _BIT64(self._block_size)
        together = _TOGETHER if self._block_size % _TOGETHER == 0 else 1
        whole = build.sub(count, build.urem(count, _BIT64(together)))
        for begin, end, step in ((_BIT64(0), whole, together), (whole, count, 1)):
            with self._loop(begin, end, step) as place:
                block = build.load(self._at(blocks, _BIT32, build.udiv(place, size)), typ=_BIT32)
                slot = build.add(build.mul(build.zext(block, _BIT64), size), build.urem(place, size))
                emit(self._at(base, _BIT32, build.mul(slot, _BIT64(self._half))), place, step)

    def _parts(self) -> list[tuple[int, int]]:
        """The query heads of an item, each with the places of its vectors of words."""
        return [(g, at) for g in range(self._group) for at in range(0, self._half, self._width)]

    def _halves(self, words: ir.Value, index: int) -> tuple[ir.Value, ir.Value]:
        build, kind = self._build, self._word_vector
        both = self._get(words, index, kind)
        first, second = build.shl(both, kind([16] * self._width)), build.and_(both, kind([0xFFFF0000] * self._width))
        return build.bitcast(first, self._vector), build.bitcast(second, self._vector)

    def _multiply_add(self, one: ir.Value, other: ir.Value, addend: ir.Value) -> ir.Value:
        return self._call("fmuladd", one.type, one, other, addend)

    def _total(self, vector: ir.Value) -> ir.Value:
        return self._call("vector.reduce.fadd", _FLOAT, _FLOAT(-0.0), vector)

    def _call(self, name: str, result: ir.Type, *values: ir.Value) -> ir.Value:
        """An intrinsic function of vectors of floats."""
        kinds = [value.type for value in values]
        full_name = f"llvm.{name}.v{kinds[-1].count}f32"
        function = self.module.globals.get(full_name) or ir.Function(
            self.module, ir.FunctionType(result, kinds), full_name
        )
        return self._build.call(function, values, fastmath=("reassoc",))

    def _splat(self, number: ir.Value, width: int | None = None) -> ir.Value:
        width = width or self._width
        if isinstance(number, ir.Constant):
            return ir.VectorType(_FLOAT, width)([number.constant] * width)
        one = self._build.insert_element(ir.VectorType(_FLOAT, width)(ir.Undefined), number, _BIT32(0))
        return self._build.shuffle_vector(one, one, ir.VectorType(_BIT32, width)([0] * width))

    def _at(self, address: ir.Value, kind: ir.Type, index: ir.Value | int) -> ir.Value:
        return self._build.gep(address, [_BIT64(index) if isinstance(index, int) else index], source_etype=kind)

    def _get(self, floats: ir.Value, index: ir.Value | int, kind: ir.Type | None = None) -> ir.Value:
        return self._build.load(self._at(floats, _FLOAT, index), align=4, typ=kind or self._vector)

    def _put(self, vector: ir.Value, floats: ir.Value, index: ir.Value | int) -> None:
        self._build.store(vector, self._at(floats, _FLOAT, index), align=4)

    @contextmanager
    def _loop(self, begin: ir.Value, end: ir.Value, following: int | Callable[[], ir.Value]) -> Iterator[ir.Value]:
        """What is emitted inside runs while the index is below the end. following: the step, or what gives the next."""
        build = self._build
        before = build.block
        check, body, after = (build.append_basic_block() for _ in range(3))
        build.branch(check)
        build.position_at_end(check)
        index = build.phi(_BIT64)
        index.add_incoming(begin, before)
        build.cbranch(build.icmp_signed("<", index, end), body, after)
        build.position_at_end(body)
        yield index
        next_index = build.add(index, _BIT64(following)) if isinstance(following, int) else following()
        index.add_incoming(next_index, build.block)
        build.branch(check)
        build.position_at_end(after)
