"""What the graph of a SavedModel may do: compute, keep variables and tables, and no more.

A SavedModel is a program, which runs with our rights. TensorFlow's own registry says which
operations do more than compute a result from their inputs; of these, models need few, and all
others are refused, those of later versions included.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from google.protobuf.message import DecodeError
from tensorflow.core.framework import attr_value_pb2, node_def_pb2, variable_pb2
from tensorflow.core.protobuf import meta_graph_pb2

# TensorFlow shows its registry nowhere else.
from tensorflow.python.framework import op_def_registry

Nodes = Iterable[node_def_pb2.NodeDef]

# Operations with a state or an effect that models have.
_USUAL = re.compile(
    r"StatefulPartitionedCall|Case|If|While|Assert|CheckNumerics(V2)?|GuaranteeConst|XlaCallModule"
    r"|Empty|DeepCopy|DeviceIndex|Print"
    r"|Variable(V2)?|TemporaryVariable|VariableShape|VarHandleOp|VarIsInitializedOp|ReadVariableOp"
    r"|Assign(Add|Sub)?VariableOp|DestroyResourceOp|DisableCopyOnRead"
    r"|Resource(Gather|Scatter|Apply|SparseApply|StridedSlice|CountUpTo)\w*"
    # Reads checkpoints, by which every model gets its variables.
    r"|Restore(V2|Slice)?"
    r"|(Anonymous)?(Mutable)?(Dense)?HashTable(OfTensors)?(V2)?|LookupTable\w+"
    r"|InitializeTable(FromTextFile)?(V2)?"
    r"|Random(Crop|Shuffle)|Random(Gamma|Poisson|StandardNormal|Uniform)\w*|Multinomial"
    r"|\w*TruncatedNormal|NonDeterministicInts|Rng(ReadAnd)?Skip|SampleDistortedBoundingBox(V2)?"
    r"|Stateful(RandomBinomial|StandardNormal|Uniform)\w*|StatelessRandomGetAlg"
    r"|TensorArray\w*|Stack(V2|Push|PushV2|Pop|PopV2|Close|CloseV2)?|CudnnRNN\w*"
)
# Operations that reach files or our Python, though the registry tells of no effect.
_HIDDEN = frozenset(
    [
        *("ReadFile", "MatchingFiles", "ImmutableConst", "GenerateVocabRemapping"),
        *("PyFuncStateless", "Copy", "CopyHost"),
        *("DebugIdentity", "DebugNanCount", "DebugNumericSummary"),
    ]
)
# Write checkpoints. TensorFlow puts them into every model, for those who save it again.
_SAVING = frozenset(["Save", "SaveSlices", "SaveV2", "MergeV2Checkpoints"])
_CONSOLE = frozenset([b"", b"stdout", b"stderr", b"log(info)", b"log(warning)", b"log(error)"])


def find_foreign_operation(graph: meta_graph_pb2.MetaGraphDef) -> str | None:
    """The name of an operation that a model has no business with; None if there is none."""
    running, saving = _split(graph)
    for node in running:
        if node.op in _SAVING or not _is_usual(node):
            return node.op
    return next((node.op for node in saving if not _is_usual(node)), None)


def _is_usual(node: node_def_pb2.NodeDef) -> bool:
    if node.op in _SAVING:
        return True
    if node.op == "PrintV2":  # it can write to a file as well
        stream = node.attr["output_stream"].s if "output_stream" in node.attr else b""
        return stream in _CONSOLE
    # Data sets read, write and ask servers in dozens of operations, with hardly one marked.
    if node.op in _HIDDEN or "Dataset" in node.op:
        return False
    definition = op_def_registry.get(node.op)
    if definition is None:  # a function, looked at by itself; all else TensorFlow cannot load
        return True
    return not definition.is_stateful or bool(_USUAL.fullmatch(node.op))


def _split(
    graph: meta_graph_pb2.MetaGraphDef,
) -> tuple[list[node_def_pb2.NodeDef], list[node_def_pb2.NodeDef]]:
    """Nodes that loading or a signature may run, and those that only saving would.

    All nodes count as the former that are not known for the latter.
    """
    nodes, library = graph.graph_def.node, graph.graph_def.library
    functions = {function.signature.name: function.node_def for function in library.function}
    roots = _roots(graph)
    names = {node.name for node in nodes} if roots is None else _needed_for(roots, nodes)
    running = [node for node in nodes if node.name in names]
    idle = [node for node in nodes if node.name not in names]
    entries = {
        *graph.object_graph_def.concrete_functions,
        *(gradient.gradient_func for gradient in library.gradient),
        *(gradient.gradient_func for gradient in library.registered_gradients),
        *_called(running),
    }
    only_idle = _reached(_called(idle), functions) - _reached(entries, functions)
    for name, body in functions.items():
        (idle if name in only_idle else running).extend(body)
    return running, idle


def _roots(graph: meta_graph_pb2.MetaGraphDef) -> set[str] | None:
    """Names of the nodes that are asked for when it is loaded or called; None if not known."""
    names = [graph.saver_def.restore_op_name]
    for signature in graph.signature_def.values():
        for output in signature.outputs.values():
            if output.WhichOneof("encoding") != "name":
                return None
            names.append(output.name)
    for collection in graph.collection_def.values():  # operations that initialise are among them
        names += collection.node_list.value
        for content in collection.bytes_list.value:
            try:
                names.append(variable_pb2.VariableDef.FromString(content).initializer_name)
            except DecodeError:  # of another kind
                continue
    return {_node_of(name) for name in names}


def _node_of(tensor: str) -> str:
    return tensor.removeprefix("^").split(":")[0]


def _needed_for(roots: Collection[str], nodes: Nodes) -> set[str]:
    inputs = {node.name: {_node_of(name) for name in node.input} for node in nodes}
    return _closure(roots, inputs)


def _reached(names: Iterable[str], functions: dict[str, Nodes]) -> set[str]:
    return _closure(names, {name: set(_called(body)) for name, body in functions.items()})


def _closure(starts: Iterable[str], leads_to: dict[str, set[str]]) -> set[str]:
    found, left = set(), [name for name in starts if name in leads_to]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left.extend(leads_to[name].intersection(leads_to) - found)
    return found


def _called(nodes: Nodes) -> Iterator[str]:
    """Names of all functions that nodes call, among others."""
    for node in nodes:
        yield node.op
        for value in node.attr.values():
            yield from _named_in(value)


def _named_in(value: attr_value_pb2.AttrValue) -> Iterator[str]:
    for function in (value.func, *value.list.func):
        yield function.name
        for inner in function.attr.values():
            yield from _named_in(inner)
