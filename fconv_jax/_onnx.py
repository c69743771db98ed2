"""A plain network as the bytes of an ONNX file.

Inside, images are `[batch, channel, height, width]`, as ONNX's convolutions want them.
"""

import functools
import json

import jax
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fconv_jax._lowered_layers import affine_of, pair
from fconv_jax.plain import OPERATIONS, PlainNetwork, blur_weights

OPSET, IR_VERSION = 20, 10

_UNARY = {"relu": "Relu", "elu": "Elu", "tanh": "Tanh", "logistic": "Sigmoid", "exp": "Exp", "log": "Log",
          "sqrt": "Sqrt", "neg": "Neg", "abs": "Abs", "erf": "Erf", "sin": "Sin", "cos": "Cos"}  # fmt: skip
_BINARY = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "pow": "Pow", "max": "Max", "min": "Min"}
_COMPARE = {"gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual", "eq": "Equal", "ne": "Equal"}
_REDUCTIONS = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax", "min": "ReduceMin"}


def encoded(network: PlainNetwork, input_shape: tuple[int, int, int], metadata: dict[str, str], float16: bool) -> bytes:
    """Returns an ONNX file of a plain network for images of one size."""
    return _Graph(network, input_shape, float16).encoded(metadata)


class _Graph:
    """Nodes and weights; `names` and `shapes` (without the batch, channels last) are those of the network's values."""

    def __init__(self, network, input_shape, float16):
        self.network, self.float16, self.nodes, self.weights = network, float16, [], []
        contents = json.loads(network.description)
        self.names, self.shapes = [], []
        self._append(self._node("Transpose", ["images"], perm=[0, 3, 1, 2]), tuple(input_shape))
        for operation, inputs, options in contents["steps"]:
            shape = self._shape(operation, inputs, options)
            write = getattr(self, f"_{operation}", None) or functools.partial(self._element_wise, operation)
            self._append(write(inputs, shape, **options), shape)
        name, shape = self.names[-1], self.shapes[-1]
        name = self._node("Transpose", [name], perm=[0, 2, 3, 1]) if len(shape) == 3 else name
        self.input_shape, self.output_shape = tuple(input_shape), shape
        if contents["output"]:
            self.output_shape = (*shape[:-1], *contents["output"])
            name = self._node("Reshape", [name, self._ints([0, *self.output_shape])])
        self.output = "logits" if len(self.output_shape) == 1 else "output"
        self._node("Identity", [name], name=self.output)

    def encoded(self, metadata):
        images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", *self.input_shape])
        output = helper.make_tensor_value_info(self.output, TensorProto.FLOAT, ["batch", *self.output_shape])
        graph = helper.make_graph(self.nodes, "fconv_jax", [images], [output], self.weights)
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="fconv_jax")
        helper.set_model_props(model, {str(key): str(value) for key, value in metadata.items()})
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)

    def _append(self, name, shape):
        self.names.append(name)
        self.shapes.append(tuple(shape))

    def _shape(self, operation, inputs, options):
        arrays = [
            self.network.constants[i][...]
            if isinstance(i, str)
            else jax.ShapeDtypeStruct((1, *self.shapes[i]), "float32")
            for i in inputs
        ]
        if operation == "layer":
            function = self.network.layers[options["name"]].__call__
        else:
            function = functools.partial(OPERATIONS[operation], **options)
        return jax.eval_shape(function, *arrays).shape[1:]

    def _node(self, kind, inputs, name=None, **attributes):
        name = name or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _weight(self, array, half=True):
        name, array = f"w{len(self.weights)}", np.ascontiguousarray(array)
        if self.float16 and half and array.dtype == np.float32 and array.size > 64:
            if np.abs(array).max() > np.finfo(np.float16).max:
                raise ValueError(f"float16: a weight of {np.abs(array).max():g} is more than 65504, its largest number")
            self.weights.append(numpy_helper.from_array(array.astype(np.float16), name))
            return self._node("Cast", [name], to=TensorProto.FLOAT)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def _ints(self, values):
        return self._weight(np.asarray(values, np.int64))

    def _number(self, value):
        return self._weight(np.asarray(value, np.float32))

    def _read(self, i):
        """The name of a value, or of a constant of the network."""
        if not isinstance(i, str):
            return self.names[i]
        array = np.asarray(self.network.constants[i][...], np.float32)
        return self._weight(np.moveaxis(array, -1, 1) if array.ndim == 4 else array, half=False)

    def _layer(self, inputs, shape, /, name):
        layer, x = self.network.layers[name], self.names[inputs[0]]
        arrays = {
            key: np.asarray(value[...], np.float32)
            for key in ("kernel", "scale", "bias", "mean", "var")
            if (value := getattr(layer, key, None)) is not None
        }
        kind = type(layer).__name__
        if kind == "Conv":
            return self._conv(x, layer, arrays, self.shapes[inputs[0]])
        if kind == "Linear":
            bias = [self._weight(arrays["bias"])] if "bias" in arrays else []
            if len(shape) == 1:
                return self._node("Gemm", [x, self._weight(arrays["kernel"]), *bias])
            kernel = np.moveaxis(arrays["kernel"][None, None], (2, 3), (1, 0))
            return self._node("Conv", [x, self._weight(kernel.reshape(*kernel.shape[:2], 1, 1)), *bias])
        if kind == "BatchNorm":
            scale, shift = affine_of(arrays, layer.epsilon)
            sides = (-1, 1, 1) if len(shape) == 3 else (-1,)
            x = self._node("Mul", [x, self._weight(np.reshape(scale, sides).astype(np.float32), half=False)])
            return self._node("Add", [x, self._weight(np.reshape(shift, sides).astype(np.float32), half=False)])
        return self._layer_norm(x, layer, arrays, len(shape) == 3)

    def _layer_norm(self, x, layer, arrays, image):
        x = self._node("Transpose", [x], perm=[0, 2, 3, 1]) if image else x
        size = layer.num_features
        scale = self._weight(arrays.get("scale", np.ones(size, np.float32)), half=False)
        bias = self._weight(arrays.get("bias", np.zeros(size, np.float32)), half=False)
        x = self._node("LayerNormalization", [x, scale, bias], axis=-1, epsilon=float(layer.epsilon))
        return self._node("Transpose", [x], perm=[0, 3, 1, 2]) if image else x

    def _conv(self, x, layer, arrays, shape):
        k, dilation, strides = layer.kernel_size, pair(layer.kernel_dilation), pair(layer.strides)
        reach = [d * (side - 1) + 1 for side, d in zip(k, dilation, strict=True)]
        pads = _pads(layer.padding, reach, strides, shape)
        if layer.padding in ("CIRCULAR", "REFLECT"):
            if layer.padding == "REFLECT" and any(max(w) >= n for w, n in zip(pads, shape[:2], strict=True)):
                raise ValueError(f"ONNX reflects no image of {shape[0]} x {shape[1]} by {max(map(max, pads))} pixels")
            mode = {"CIRCULAR": "wrap", "REFLECT": "reflect"}[layer.padding]
            before, after = [[0, 0, *(both[side] for both in pads)] for side in (0, 1)]
            x, pads = self._node("Pad", [x, self._ints([*before, *after])], mode=mode), [(0, 0), (0, 0)]
        kernel = np.transpose(arrays["kernel"], (3, 2, 0, 1))
        ins = [x, self._weight(kernel), *([self._weight(arrays["bias"])] if "bias" in arrays else [])]
        return self._node(
            "Conv", ins, kernel_shape=list(k), strides=list(strides), dilations=list(dilation),
            group=layer.feature_group_count, pads=[both[side] for side in (0, 1) for both in pads],
        )  # fmt: skip

    def _pool(self, kind, inputs, window, strides, padding, widen, **attributes):
        windows = self._windows(inputs, window, strides, padding, widen)
        ins = [self.names[inputs[0]]]
        if padding >= window:  # onnxruntime rejects windows of padding alone; a mean pool counts the zeros
            ins, padding = [self._node("Pad", [*ins, self._ints([0, 0, padding, padding] * 2)])], 0
        return self._node(kind, ins, kernel_shape=windows, strides=[strides] * 2, pads=[padding] * 4, **attributes)

    def _windows(self, inputs, window, strides, padding, widen):
        sizes = self.shapes[inputs[0]][:2]
        return [window + ((size + 2 * padding - window) % strides if widen else 0) for size in sizes]

    def _max_pool(self, inputs, shape, /, **options):
        return self._pool("MaxPool", inputs, **options)

    def _mean_pool(self, inputs, shape, /, **options):
        return self._pool("AveragePool", inputs, count_include_pad=1, **options)

    def _blur_pool(self, inputs, shape, /, *, window, strides, padding, widen):
        rows, columns = (blur_weights(k) for k in self._windows(inputs, window, strides, padding, widen))
        kernel = np.tile(np.outer(rows, columns).astype(np.float32), (shape[-1], 1, 1, 1))
        ins = [self.names[inputs[0]], self._weight(kernel, half=False)]
        sides = list(kernel.shape[2:])
        return self._node("Conv", ins, kernel_shape=sides, strides=[strides] * 2, pads=[padding] * 4, group=shape[-1])

    def _split(self, i, order):
        """The value with its channels as two axes, group and channel."""
        *space, channels = self.shapes[i]
        return self._node("Reshape", [self.names[i], self._ints([0, order, channels // order, *space])])

    def _over_group(self, inputs, shape, /, *, order, kind):
        ins = [self._split(inputs[0], order), self._ints([1])]
        return self._node(_REDUCTIONS[kind], ins, keepdims=0)

    def _over_space(self, inputs, shape, /, *, kind):
        return self._node(_REDUCTIONS[kind], [self.names[inputs[0]], self._ints([2, 3])], keepdims=0)

    def _concatenate(self, inputs, shape, /, *, order):
        if order == 1:
            return self._node("Concat", [self.names[i] for i in inputs], axis=1)
        joined = self._node("Concat", [self._split(i, order) for i in inputs], axis=2)
        return self._node("Reshape", [joined, self._ints([0, shape[-1], *shape[:-1]])])

    def _reshape(self, inputs, shape, /, **options):
        x, before = self.names[inputs[0]], self.shapes[inputs[0]]
        if len(before) == 3 and before[:2] != (1, 1):
            x = self._node("Transpose", [x], perm=[0, 2, 3, 1])
        x = self._node("Reshape", [x, self._ints([0, *shape])])
        return self._node("Transpose", [x], perm=[0, 3, 1, 2]) if len(shape) == 3 else x

    def _upsample(self, inputs, shape, /, *, factor):
        scales = self._weight(np.asarray([1, 1, factor, factor], np.float32))
        return self._node("Resize", [self.names[inputs[0]], "", scales], mode="linear")

    def _rsqrt(self, inputs, shape, /):
        return self._node("Reciprocal", [self._node("Sqrt", [self.names[inputs[0]]])])

    def _square(self, inputs, shape, /):
        return self._node("Mul", [self.names[inputs[0]]] * 2)

    def _element_wise(self, operation, inputs, shape, *, number=None, first=False):
        ins = [self._read(i) for i in inputs]
        if operation in _UNARY:
            return self._node(_UNARY[operation], ins)
        if number is not None:
            ins.insert(0 if first else 1, self._number(number))
        if operation in _COMPARE:
            found = self._node(_COMPARE[operation], ins)
            found = self._node("Not", [found]) if operation == "ne" else found
            return self._node("Cast", [found], to=TensorProto.FLOAT)
        return self._node(_BINARY[operation], ins)

    def _expm1(self, inputs, shape, /):
        x, one = self._read(inputs[0]), self._number(1.0)
        t = self._node("Tanh", [self._node("Mul", [x, self._number(0.5)])])
        small = self._node("Div", [self._node("Add", [t, t]), self._node("Sub", [one, t])])  # no difference of 1
        is_small = self._node("Less", [self._node("Abs", [x]), self._number(0.5)])
        return self._node("Where", [is_small, small, self._node("Sub", [self._node("Exp", [x]), one])])

    def _log1p(self, inputs, shape, /):
        x, one = self._read(inputs[0]), self._number(1.0)
        u = self._node("Add", [x, one])
        y = self._node("Div", [self._node("Mul", [self._node("Log", [u]), x]), self._node("Sub", [u, one])])
        return self._node("Where", [self._node("Equal", [u, one]), x, y])  # the rounding of u cancels

    def _where(self, inputs, shape):
        condition, otherwise, x = (self._read(i) for i in inputs)
        return self._node("Where", [self._node("Cast", [condition], to=TensorProto.BOOL), x, otherwise])


def _pads(padding, reach, strides, shape):
    """(before, after) of rows and columns, as `nnx.Conv` pads."""
    if padding == "VALID":
        return [(0, 0), (0, 0)]
    if padding in ("CIRCULAR", "REFLECT"):
        return [((k - 1) // 2, k // 2) for k in reach]
    if padding == "SAME":
        left = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(shape[:2], reach, strides, strict=True)]
        return [(each // 2, each - each // 2) for each in left]
    return [tuple(both) for both in padding]
