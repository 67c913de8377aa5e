"""Tensors of an ONNX graph that do not depend on its input: stored as they are, or computed out of stored ones."""

from typing import Any


class Constants:
    """The constants of a graph by name; ``model`` is an ``onnx.ModelProto`` with its data loaded."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {output: number for number, node in enumerate(model.graph.node) for output in node.output}

    def array(self, name: str) -> Any | None:
        """Return a constant as a numpy array; None if it depends on the network's input, or is nowhere made.

        A quantised weight comes back as the convolution sees it: after its ``DequantizeLinear``.

        Raises:
            ValueError: it is made by an operator that the onnx package cannot run.
        """
        from onnx import numpy_helper
        from onnx.reference import ReferenceEvaluator

        if name in self._stored:
            return numpy_helper.to_array(self._stored[name])
        graph = self._graph_of(name)
        if graph is None:
            return None
        from onnx.helper import make_model

        part = make_model(graph, opset_imports=self._model.opset_import, functions=self._model.functions)
        try:
            return ReferenceEvaluator(part).run(None, {})[0]
        except Exception as error:  # whatever an operator raises, or the evaluator for one that it does not have
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"it cannot be computed by the onnx package ({reason:.200})") from error

    def _graph_of(self, name: str) -> Any | None:
        """Return the part of the graph that makes a constant, None if that needs anything but constants."""
        from onnx import TypeProto
        from onnx.helper import make_graph, make_value_info

        needed, seen, numbers = [name], {name}, set()
        while needed:
            current = needed.pop()
            if not current or current in self._stored:  # "" is an input that is left out
                continue
            if current not in self._makers:
                return None
            numbers.add(self._makers[current])
            new = set(self._model.graph.node[self._makers[current]].input) - seen
            seen |= new
            needed += new
        nodes = [self._model.graph.node[number] for number in sorted(numbers)]
        stored = [self._stored[each] for each in seen if each in self._stored]
        return make_graph(nodes, "constant", [], [make_value_info(name, TypeProto())], stored)
