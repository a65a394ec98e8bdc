"""A model must not make an engine open anything but a listed file beside it, in whatever corner it says so."""

import random

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf.descriptor import FieldDescriptor
from onnx import AttributeProto, TensorProto, helper

from mmedge.core.bundle import open_bundle
from mmedge.core.onnx_file import CHILDREN, SINGLE, Reference, data_files, references
from mmedge.errors import BundleError

MODEL, DATA = "graphs/encoder.onnx", "graphs/encoder.bin"


def change(key, value):
    """Edit one entry of the reference of the first weight; ``None`` removes it."""

    def edit(model):
        entries = model.graph.initializer[0].external_data
        for entry in [entry for entry in entries if entry.key == key]:
            entries.remove(entry)
        if value is not None:
            entries.add(key=key, value=value)

    return edit


def add(key, value):
    return lambda model: model.graph.initializer[0].external_data.add(key=key, value=value)


def outside():
    """A tensor that asks for a file outside the bundle."""
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../outside.bin")
    return tensor


def attribute(model):
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=outside()))


def attribute_list(model):
    node = model.graph.node.add(op_type="Constant", output=["c"])
    node.attribute.add(name="values", type=AttributeProto.TENSORS, tensors=[outside()])


def subgraph(model):
    branch = helper.make_graph([], "branch", [], [], [outside()])
    model.graph.node.append(helper.make_node("If", ["condition"], ["c"], then_branch=branch, else_branch=branch))


def subgraph_list(model):
    node = model.graph.node.add(op_type="Custom", output=["c"])
    node.attribute.add(name="g", type=AttributeProto.GRAPHS, graphs=[helper.make_graph([], "g", [], [], [outside()])])


def function(model):
    node = helper.make_node("Constant", [], ["c"], value=outside())
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], []))


def function_default(model):
    function = helper.make_function("own", "f", [], ["c"], [], [])
    function.attribute_proto.add(name="value", type=AttributeProto.TENSOR).t.CopyFrom(outside())
    model.functions.append(function)


def sparse(part):
    def edit(model):
        getattr(model.graph.sparse_initializer.add(dims=[1]), part).CopyFrom(outside())

    edit.__name__ = f"sparse_{part}"
    return edit


def training(model):
    model.training_info.add().initialization.initializer.append(outside())


def without_admitting_it(model):
    tensor = outside()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


def without_saying_where(model):
    tensor = outside()
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


def deep(model):
    graph = model.graph
    for _ in range(200):
        node = graph.node.add(op_type="If", output=["c"])
        graph = node.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g


HOSTILE = {
    "parent": change("location", "../outside.bin"),
    "parent of a folder": change("location", "a/../../outside.bin"),
    "absolute": change("location", "/etc/passwd"),
    "backslash": change("location", "..\\outside.bin"),
    "drive": change("location", "C:\\outside.bin"),
    "url": change("location", "file:///etc/passwd"),
    "dot": change("location", "./encoder.bin"),
    "folder": change("location", "graphs/encoder.bin"),
    "device": change("location", "aux"),
    "empty": change("location", ""),
    "newline": change("location", "encoder.bin\n"),
    "nul": change("location", "encoder.bin\0x"),
    "memory address of onnxruntime": change("location", "*/_ORT_MEM_ADDR_/*"),
    "manifest": change("location", "manifest.json"),
    "not listed": change("location", "other.bin"),
    "none": change("location", None),
    "negative offset": change("offset", "-1"),
    "signed offset": change("offset", "+0"),
    "offset beyond the end": change("offset", "4225"),
    "offset that overflows": change("offset", str(2**64)),
    "offset in hexadecimal": change("offset", "0x10"),
    "offset in other digits": change("offset", "\u0661"),
    "empty offset": change("offset", ""),
    "length beyond the end": change("length", "4225"),
    "offset and length together": change("offset", "4000"),
    "huge length": change("length", str(10**15)),
    "negative length": change("length", "-1"),
    "unknown key": add("basepath", "/etc"),
    "dunder key": add("__class__", "x"),
    "repeated key": add("location", "encoder.bin"),
    "attribute": attribute,
    "attribute list": attribute_list,
    "subgraph": subgraph,
    "subgraph list": subgraph_list,
    "function": function,
    "function default": function_default,
    "sparse values": sparse("values"),
    "sparse indices": sparse("indices"),
    "training": training,
    "without admitting it": without_admitting_it,
    "without saying where": without_saying_where,
    "deep": deep,
}


def spoil(bundle, workshop, raw):
    (bundle / MODEL).write_bytes(raw)
    workshop.list_again(bundle)
    return open_bundle(bundle)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_model_that_refers_elsewhere_is_refused(case, spoiled, workshop):
    (spoiled.parent / "outside.bin").write_bytes(bytes(4224))
    model = onnx.load_model_from_string(workshop.files[MODEL])
    HOSTILE[case](model)
    bundle = spoil(spoiled, workshop, model.SerializeToString())
    for use in (lambda: bundle.file(MODEL), bundle.verify):
        with pytest.raises(BundleError, match=r"graphs/encoder\.onnx"):
            use()


def test_a_model_may_not_refer_into_another_folder_even_if_the_file_is_listed(spoiled, workshop):
    (spoiled / "graphs/shared").mkdir()
    (spoiled / "graphs/shared/encoder.bin").write_bytes(bytes(4224))
    model = onnx.load_model_from_string(workshop.files[MODEL])
    change("location", "shared/encoder.bin")(model)
    with pytest.raises(BundleError, match="no plain file name"):
        spoil(spoiled, workshop, model.SerializeToString()).file(MODEL)


def field(number, content):
    """A length-delimited protobuf field of less than 16 KiB."""
    return bytes([number << 3 | 2, 0x80 | len(content) & 0x7F, len(content) >> 7]) + content


def half(**reference):
    """Part of a tensor that is harmless alone."""
    tensor = TensorProto()
    for key, value in reference.items():
        tensor.external_data.add(key=key, value=value)
    return tensor.SerializeToString()


HALVES = field(5, half(location="encoder.bin", offset="4224")) + field(5, half(location="encoder.bin", length="4224"))
ENTRY = field(13, field(1, b"location") + field(2, b"../x"))
GARBAGE = {
    "truncated": lambda raw: raw[:-1],
    "cut in the middle": lambda raw: raw[: len(raw) // 2],
    "text": lambda raw: b"not a model",
    "field number 0": lambda raw: raw + b"\x02\x00",
    "group": lambda raw: raw + b"\x3b" + raw + b"\x3c",
    "wire type 7": lambda raw: raw + b"\x0f",
    "endless number": lambda raw: raw + b"\x08" + b"\xff" * 20,
    "huge field": lambda raw: raw + b"\x3a\xff\xff\xff\xff\x0f",
    "tag with bits that engines drop": lambda raw: raw + b"\xba\x80\x80\x80\x10" + field(7, field(5, ENTRY))[1:],
    "second graph, merged into the first": lambda raw: raw + field(7, b""),
    "halves of a tensor, merged into a wrong one": lambda raw: field(7, field(1, field(5, HALVES))),
    "entry with two keys": lambda raw: raw + field(7, field(5, field(13, field(1, b"a") + field(1, b"location")))),
    "entry that is not text": lambda raw: field(7, field(5, field(13, field(1, b"location") + field(2, b"\xff")))),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_a_malformed_model_is_refused(case, spoiled, workshop):
    bundle = spoil(spoiled, workshop, GARBAGE[case](workshop.files[MODEL]))
    with pytest.raises(BundleError, match=r"graphs/encoder\.onnx"):
        bundle.file(MODEL)


def test_the_honest_model_passes_and_its_data_is_checked_with_it(spoiled):
    bundle = open_bundle(spoiled)
    assert bundle.file(MODEL) == spoiled / MODEL
    damaged = bytearray((spoiled / DATA).read_bytes())
    damaged[100] ^= 1
    (spoiled / DATA).write_bytes(damaged)
    with pytest.raises(BundleError, match=r"encoder\.bin` is damaged"):
        bundle.file(MODEL)


def test_references_are_read_as_onnx_writes_them(workshop):
    assert list(references(workshop.files[MODEL])) == [
        Reference("encoder.bin", 0, 32 * 32 * 4),
        Reference("encoder.bin", 32 * 32 * 4, 32 * 4),
    ]


def test_a_reference_may_run_to_the_end_of_its_file(pristine, workshop):
    model = onnx.load_model_from_string(workshop.files[MODEL])
    change("length", None)(model)
    change("offset", "4224")(model)
    files = open_bundle(pristine).manifest.files
    assert data_files(model.SerializeToString(), MODEL, files) == {DATA}


def test_a_model_without_external_data_refers_to_nothing():
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "g", [], [])
    assert list(references(helper.make_model(graph).SerializeToString())) == []


def test_the_walk_reaches_every_tensor_that_onnx_can_hold():
    """Against the descriptors of the installed onnx, so that a new field cannot be missed."""
    leading, single = {}, set()
    for kind, message in ((kind, message) for kind, message in messages() if kind != "Tensor"):
        fields = [field for field in message.fields if field.message_type and leads_to_tensor(field.message_type)]
        if fields:
            leading[kind] = {field.number: field.message_type.name.removesuffix("Proto") for field in fields}
            single |= {(kind, field.number) for field in fields if not is_repeated(field)}
    assert leading == CHILDREN
    assert single == SINGLE


def is_repeated(field):
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED


def messages():
    found, waiting = {}, [onnx.ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in found:
            found[message.name] = message
            waiting += [field.message_type for field in message.fields if field.message_type]
    return [(name.removesuffix("Proto"), message) for name, message in found.items()]


def leads_to_tensor(message, seen=frozenset()):
    if message.name == "TensorProto" or message.name in seen:
        return message.name == "TensorProto"
    return any(
        leads_to_tensor(field.message_type, seen | {message.name}) for field in message.fields if field.message_type
    )


def test_random_damage_is_refused_or_harmless(pristine, workshop):
    files, raw, random_ = open_bundle(pristine).manifest.files, workshop.files[MODEL], random.Random(0)
    refused = 0
    for _ in range(5000):
        damaged = bytearray(raw)
        for _ in range(random_.randint(1, 4)):
            damaged[random_.randrange(len(damaged))] = random_.randrange(256)
        try:
            assert data_files(bytes(damaged), MODEL, files) <= {DATA, "graphs/decoder.bin"}
        except ValueError:
            refused += 1
    assert 1000 < refused < 5000


def test_a_model_of_nothing_but_fields_is_given_up(monkeypatch):
    monkeypatch.setattr("mmedge.core.onnx_file._MOST_FIELDS", 1000)
    with pytest.raises(ValueError, match="more than 1000 fields"):
        list(references(b"\x08\x01" * 1001))


def test_an_engine_opens_what_was_checked(pristine):
    session = onnxruntime.InferenceSession(open_bundle(pristine).file(MODEL), providers=["CPUExecutionProvider"])
    assert session.run(None, {"picture": np.ones((1, 32), np.float32)})[0].shape == (1, 32)
