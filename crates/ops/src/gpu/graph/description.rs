//! The description of a convolution for cuDNN's graph interface, as plain data: which descriptors, with which
//! attributes. Descriptors refer to each other by the numbers that the library gave out.

use candle_core::DType;

use super::names::{Attribute, ConvolutionMode, DataType, HeuristicsMode, Kind, Type};
use crate::gpu::convolution::{Convolution, Direction};
use crate::gpu::plans::Operands;
use crate::gpu::sizes::Sizes;

/// Bytes that every tensor's address is a multiple of: what vectorized loads of an engine need.
pub(super) const ALIGNMENT: u64 = 16;
/// The identifiers of x, weight and y (or their gradients) when their addresses are passed.
const IDS: [i64; 3] = [1, 2, 3];

/// A descriptor before the library knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Description {
    pub(crate) kind: Kind,
    pub(crate) attributes: Vec<(Attribute, Value)>,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// The handle that the library was opened with.
    Handle,
    /// One of an enumeration of this type.
    Enum(Type, i32),
    Int64(Vec<i64>),
    Float(f32),
    /// Addresses on the device.
    Pointers(Vec<u64>),
    /// Other descriptors.
    Descriptors(Vec<u64>),
}

impl Value {
    pub(crate) fn kind(&self) -> Type {
        match self {
            Self::Handle => Type::CUDNN_TYPE_HANDLE,
            Self::Enum(kind, _) => *kind,
            Self::Int64(_) => Type::CUDNN_TYPE_INT64,
            Self::Float(_) => Type::CUDNN_TYPE_FLOAT,
            Self::Pointers(_) => Type::CUDNN_TYPE_VOID_PTR,
            Self::Descriptors(_) => Type::CUDNN_TYPE_BACKEND_DESCRIPTOR,
        }
    }
}

/// x, weight and y, and how the weight moves over x.
pub(super) fn parts(convolution: &Convolution) -> Result<[Description; 4], String> {
    let sizes = Sizes::of(&convolution.geometry)?;
    let data_type = match convolution.dtype {
        DType::F32 => DataType::CUDNN_DATA_FLOAT,
        DType::BF16 => DataType::CUDNN_DATA_BFLOAT16,
        other => return Err(format!("{other:?} is no type of a convolution here")),
    };
    let [x, weight, y] = IDS;
    Ok([
        tensor(x, sizes.x, data_type),
        tensor(weight, sizes.weight, data_type),
        tensor(y, sizes.y, data_type),
        movement(&sizes),
    ])
}

/// Sizes in logical order, channels last in memory.
fn tensor(id: i64, dims: [i32; 4], data_type: DataType) -> Description {
    let [n, c, h, w] = dims.map(i64::from);
    let strides = vec![h * w * c, 1, w * c, c];
    Description {
        kind: Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR,
        attributes: vec![
            (Attribute::CUDNN_ATTR_TENSOR_DATA_TYPE, data_type_value(data_type)),
            (Attribute::CUDNN_ATTR_TENSOR_DIMENSIONS, Value::Int64(vec![n, c, h, w])),
            (Attribute::CUDNN_ATTR_TENSOR_STRIDES, Value::Int64(strides)),
            (Attribute::CUDNN_ATTR_TENSOR_UNIQUE_ID, Value::Int64(vec![id])),
            (
                Attribute::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT,
                Value::Int64(vec![ALIGNMENT.cast_signed()]),
            ),
        ],
    }
}

fn data_type_value(data_type: DataType) -> Value {
    Value::Enum(Type::CUDNN_TYPE_DATA_TYPE, data_type as i32)
}

/// Sums are in f32 whatever the tensors are stored as. The number of groups follows from the channels of x
/// and weight.
fn movement(sizes: &Sizes) -> Description {
    let Sizes { padding, stride, dilation, .. } = *sizes;
    let both = |value: i32| Value::Int64(vec![value.into(); 2]);
    let mode = ConvolutionMode::CUDNN_CROSS_CORRELATION as i32;
    Description {
        kind: Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
        attributes: vec![
            (
                Attribute::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
                data_type_value(DataType::CUDNN_DATA_FLOAT),
            ),
            (
                Attribute::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
                Value::Enum(Type::CUDNN_TYPE_CONVOLUTION_MODE, mode),
            ),
            (Attribute::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, Value::Int64(vec![2])),
            (Attribute::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, both(padding)),
            (Attribute::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, both(padding)),
            (Attribute::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, both(stride)),
            (Attribute::CUDNN_ATTR_CONVOLUTION_DILATIONS, both(dilation)),
        ],
    }
}

/// One of the three products of [`parts`], which the library knows by these numbers. Its result replaces
/// what was there.
pub(super) fn operation(direction: Direction, parts: [u64; 4]) -> Description {
    use Attribute as A;
    let (kind, names) = match direction {
        Direction::Forward => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
            ],
        ),
        Direction::InputGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
            ],
        ),
        Direction::WeightGradient => (
            Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
            [
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                A::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
            ],
        ),
    };
    let parts = parts.map(|part| Value::Descriptors(vec![part]));
    let values = parts.into_iter().chain([Value::Float(1.0), Value::Float(0.0)]);
    Description { kind, attributes: names.into_iter().zip(values).collect() }
}

/// A graph of one operation.
pub(super) fn operation_graph(operation: u64) -> Description {
    Description {
        kind: Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
        attributes: vec![
            (Attribute::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, Value::Handle),
            (Attribute::CUDNN_ATTR_OPERATIONGRAPH_OPS, Value::Descriptors(vec![operation])),
        ],
    }
}

/// A question for engines that compute a graph.
pub(super) fn heuristics(graph: u64, mode: HeuristicsMode) -> Description {
    Description {
        kind: Kind::CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR,
        attributes: vec![
            (Attribute::CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, Value::Descriptors(vec![graph])),
            (
                Attribute::CUDNN_ATTR_ENGINEHEUR_MODE,
                Value::Enum(Type::CUDNN_TYPE_HEUR_MODE, mode as i32),
            ),
        ],
    }
}

/// A plan: it computes a graph by an engine and its settings.
pub(super) fn execution_plan(config: u64) -> Description {
    Description {
        kind: Kind::CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR,
        attributes: vec![
            (Attribute::CUDNN_ATTR_EXECUTION_PLAN_HANDLE, Value::Handle),
            (Attribute::CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, Value::Descriptors(vec![config])),
        ],
    }
}

/// The addresses of a computation; a workspace at 0 is none.
pub(super) fn variant_pack(
    direction: Direction,
    operands: Operands,
    workspace: u64,
) -> Result<Description, String> {
    let Operands { a, b, out } = operands;
    let [x, weight, y] = match direction {
        Direction::Forward => [a, b, out],
        Direction::InputGradient => [out, a, b],
        Direction::WeightGradient => [a, out, b],
    };
    // An engine may load 16 bytes at a time, which fails on the device where they lie across.
    if let Some(odd) = [x, weight, y].into_iter().find(|at| !at.is_multiple_of(ALIGNMENT)) {
        return Err(format!(
            "a tensor at {odd:#x} is not aligned to {ALIGNMENT} bytes; \
             run.conv_backend = \"legacy\" takes it"
        ));
    }
    Ok(Description {
        kind: Kind::CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
        attributes: vec![
            (Attribute::CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, Value::Int64(IDS.to_vec())),
            (Attribute::CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, Value::Pointers(vec![x, weight, y])),
            (Attribute::CUDNN_ATTR_VARIANT_PACK_WORKSPACE, Value::Pointers(vec![workspace])),
        ],
    })
}
