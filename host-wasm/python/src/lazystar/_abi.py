"""Calls the core module by the canonical ABI of the component model.

Every function and type comes from `engine.json`, which `lazystar-componentize` makes of `wit/`. The
component itself would do as well, but wasmtime's Python API moves the bytes of a list one by one.

Values: records are named tuples, variants `Case(tag, value)`, enums their names, `list<u8>` is `bytes`, `none` is
`None`, and the error of a result is raised.
"""

from collections import namedtuple
from importlib import resources
import json
import struct
import threading
import time

import wasmtime

from ._errors import error_of

Case = namedtuple("Case", "tag value", defaults=(None,))
_TICK = 0.1
_PRIMITIVES = {"bool": "<?", "u8": "<B", "u32": "<I", "u64": "<Q", "s64": "<q"}


def _up(offset, align):
    return (offset + align - 1) // align * align


def _signed(value, bits):
    return value - (1 << bits) if value >> (bits - 1) else value


class _Type:
    """A type of the interface: its layout in memory, and how values of it get in and out."""

    size = align = 4
    flat = ("i32",)

    def flatten(self, instance, value):
        raise NotImplementedError(type(self))


class _Primitive(_Type):
    def __init__(self, name):
        self.format = struct.Struct(_PRIMITIVES[name])
        self.size = self.align = self.format.size
        self.flat = ("i64",) if self.size == 8 else ("i32",)

    def load(self, instance, at):
        return self.format.unpack(instance.read(at, self.size))[0]

    def store(self, instance, at, value):
        instance.write(at, self.format.pack(value))

    def flatten(self, instance, value):
        return [_signed(value, 64 if self.size == 8 else 32) if value >= 0 else value]


class _Sequence(_Type):
    """A string or list: a pointer and a length."""

    size = 8
    flat = ("i32", "i32")

    def load(self, instance, at):
        pointer, length = struct.unpack("<II", instance.read(at, 8))
        return self.lift(instance, pointer, length)

    def store(self, instance, at, value):
        instance.write(at, struct.pack("<II", *self.lower(instance, value)))

    def flatten(self, instance, value):
        return [_signed(word, 32) for word in self.lower(instance, value)]


class _Bytes(_Sequence):
    def lift(self, instance, pointer, length):
        return bytes(instance.read(pointer, length))

    def lower(self, instance, value):
        pointer = instance.allocate(len(value), 1)
        instance.write(pointer, bytes(value))
        return pointer, len(value)


class _String(_Bytes):
    def lift(self, instance, pointer, length):
        return super().lift(instance, pointer, length).decode()

    def lower(self, instance, value):
        return super().lower(instance, value.encode())


class _List(_Sequence):
    def __init__(self, item):
        self.item = item

    def lift(self, instance, pointer, length):
        return [self.item.load(instance, pointer + at * self.item.size) for at in range(length)]

    def lower(self, instance, value):
        pointer = instance.allocate(len(value) * self.item.size, self.item.align)
        for at, item in enumerate(value):
            self.item.store(instance, pointer + at * self.item.size, item)
        return pointer, len(value)


class _Record(_Type):
    def __init__(self, make, types):
        self.make, self.types = make, types
        self.align = max((it.align for it in types), default=1)
        self.offsets, end = [], 0
        for it in types:
            end = _up(end, it.align)
            self.offsets.append(end)
            end += it.size
        self.size = _up(end, self.align)
        self.flat = tuple(flat for it in types for flat in it.flat)

    def load(self, instance, at):
        return self.make(*(it.load(instance, at + offset) for it, offset in zip(self.types, self.offsets)))

    def store(self, instance, at, value):
        for it, offset, part in zip(self.types, self.offsets, value):
            it.store(instance, at + offset, part)

    def flatten(self, instance, value):
        return [word for it, part in zip(self.types, value) for word in it.flatten(instance, part)]


class _Variant(_Type):
    """A variant, enum, option or result: the number of the case, and what that case holds."""

    def __init__(self, cases, make, number):
        self.cases, self.make, self.number = cases, make, number
        payloads = [it for _, it in cases if it]
        self.align = max([it.align for it in payloads] + [1])
        self.offset = self.align
        self.size = _up(self.offset + max([it.size for it in payloads] + [0]), self.align)
        joined = []
        for it in payloads:
            for at, flat in enumerate(it.flat):
                if at == len(joined):
                    joined.append(flat)
                elif joined[at] != flat:
                    joined[at] = "i64"
        self.flat = ("i32", *joined)

    def load(self, instance, at):
        tag, payload = self.cases[instance.read(at, 1)[0]]
        return self.make(tag, payload and payload.load(instance, at + self.offset))

    def store(self, instance, at, value):
        number, inner = self.number(value)
        instance.write(at, bytes([number]))
        payload = self.cases[number][1]
        if payload:
            payload.store(instance, at + self.offset, inner)

    def flatten(self, instance, value):
        number, inner = self.number(value)
        payload = self.cases[number][1]
        words = payload.flatten(instance, inner) if payload else []
        return [number, *words, *[0] * (len(self.flat) - 1 - len(words))]


class Handle:
    """An object inside the engine. It goes with the engine, or with `close`."""

    def __init__(self, instance, resource, representation):
        self.instance, self.resource, self.representation = instance, resource, representation

    def close(self):
        """Frees the object."""
        if self.representation is not None:
            self.instance.drop(self.resource, self.representation)
            self.representation = None


class _Own(_Type):
    def __init__(self, resource):
        self.resource = resource

    def load(self, instance, at):
        return self.lift(instance, struct.unpack("<I", instance.read(at, 4))[0])

    def lift(self, instance, handle):
        return Handle(instance, self.resource, instance.handles.pop(handle))

    def flatten(self, instance, value):
        representation, value.representation = value.representation, None
        return [instance.new_handle(representation)]


class _Borrow(_Type):
    def store(self, instance, at, value):
        instance.write(at, struct.pack("<I", value.representation))

    def flatten(self, instance, value):
        return [_signed(value.representation, 32)]


class Interface:
    """The types and functions of the engine, and its compiled code."""

    def __init__(self):
        package = resources.files(__package__)
        self.wit = json.loads(package.joinpath("engine.json").read_text())
        config = wasmtime.Config()
        config.epoch_interruption = True
        self.engine = wasmtime.Engine(config)
        self.module = wasmtime.Module(self.engine, package.joinpath("engine.core.wasm").read_bytes())
        threading.Thread(target=self._tick, daemon=True).start()
        self.types = {}
        self.functions = {}
        for interface, functions in self.wit["interfaces"].items():
            short = interface.partition("/")[2].partition("@")[0]
            for name, function in functions.items():
                parameters = [self.type(it) for it in function["parameters"]]
                result = function["result"]
                result = None if result is None else self.type(result)
                self.functions[f"{short}.{name}"] = (f"{interface}#{name}", parameters, result)

    def _tick(self):
        while True:
            time.sleep(_TICK)
            self.engine.increment_epoch()

    def type(self, reference):
        """The type that a reference of the JSON stands for."""
        if reference not in self.types:
            self.types[reference] = self._make(reference)
        return self.types[reference]

    def _make(self, reference):
        if reference == "string":
            return _String()
        if isinstance(reference, str):
            return _Primitive(reference)
        definition = self.wit["types"][reference]
        shape, of = next((shape, of) for shape, of in definition.items() if shape != "name")
        if shape == "type":
            return self.type(of)
        if shape == "list":
            return _Bytes() if of == "u8" else _List(self.type(of))
        if shape == "record":
            make = namedtuple(definition["name"].replace("-", "_"), [name.replace("-", "_") for name, _ in of])
            return _Record(make, [self.type(it) for _, it in of])
        if shape == "tuple":
            return _Record(lambda *parts: parts, [self.type(it) for it in of])
        if shape == "enum":
            return _Variant([(name, None) for name in of], lambda tag, _: tag, lambda value: (of.index(value), None))
        if shape == "variant":
            cases = [(name, self._optional(it)) for name, it in of]
            names = [name for name, _ in cases]
            return _Variant(cases, Case, lambda value: (names.index(value.tag), value.value))
        if shape == "option":
            cases = [(None, None), (None, self.type(of))]
            return _Variant(cases, lambda _, value: value, lambda value: (int(value is not None), value))
        if shape == "result":
            return _Variant([(name, self._optional(it)) for name, it in zip(("ok", "err"), of)], Case, None)
        if shape == "borrow":
            return _Borrow()
        if shape == "own":
            resource = self.wit["types"][of]
            while "type" in resource:
                resource = self.wit["types"][resource["type"]]
            return _Own(resource["resource"])
        raise TypeError(f"no such type: {definition}")

    def _optional(self, reference):
        return None if reference is None else self.type(reference)


class Instance:
    """An instance of the engine, with memory of its own, of which a call may take `deadline` seconds."""

    def __init__(self, interface, memory_limit, deadline):
        self.interface, self.ticks = interface, int(deadline / _TICK) + 1
        self.store = wasmtime.Store(interface.engine)
        self.store.set_limits(memory_size=memory_limit)
        self.store.set_epoch_deadline(self.ticks)
        self.handles, self.last_handle, self.destructors = {}, 0, {}
        linker = wasmtime.Linker(interface.engine)
        i32 = wasmtime.ValType.i32()
        for imported in interface.module.imports:
            action, resource = imported.name[1:].split("]")
            give, results = {
                "resource-new": (self.new_handle, [i32]),
                "resource-rep": (self.handles.__getitem__, [i32]),
                "resource-drop": (lambda handle, it=resource: self.drop(it, self.handles.pop(handle)), []),
            }[action]
            linker.define_func(imported.module, imported.name, wasmtime.FuncType([i32], results), give)
        self.exports = linker.instantiate(self.store, interface.module).exports(self.store)
        self.memory = self.exports["memory"]
        self.realloc = self.exports["cabi_realloc"]
        for name, export in self.exports.items():
            if "#[dtor]" in name:
                self.destructors[name.rpartition("]")[2]] = export

    def new_handle(self, representation):
        self.last_handle += 1
        self.handles[self.last_handle] = representation
        return self.last_handle

    def drop(self, resource, representation):
        self.destructors[resource](self.store, _signed(representation & 0xFFFFFFFF, 32))

    def read(self, at, length):
        return self.memory.read(self.store, at, at + length) if length else b""

    def write(self, at, data):
        if data:
            self.memory.write(self.store, data, at)

    def allocate(self, size, align):
        return self.realloc(self.store, 0, 0, align, size) & 0xFFFFFFFF if size else align

    def call(self, name, *arguments):
        """Calls a function, such as `layers.[method]layer.lookup`, and raises the error of its result."""
        export, types, result = self.interface.functions[name]
        self.store.set_epoch_deadline(self.ticks)
        words = [word for it, value in zip(types, arguments) for word in it.flatten(self, value)]
        answer = self.exports[export](self.store, *words)
        if result is None:
            return None
        if len(result.flat) > 1:
            value = result.load(self, answer & 0xFFFFFFFF)
        elif isinstance(result, _Own):
            value = result.lift(self, answer)
        else:
            value = answer
        post = self.exports.get("cabi_post_" + export)
        if post is not None:
            post(self.store, answer)
        if isinstance(result, _Variant) and result.number is None:
            if value.tag == "err":
                raise error_of(value.value)
            return value.value
        return value
