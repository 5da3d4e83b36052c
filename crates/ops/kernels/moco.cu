// The kernels of the crate as one module. Entries are extern "C": NAME_f32 and NAME_bf16 for kernels
// that read and write activations or the queue, only NAME for those that have one type.
#include "base.cuh"
#include "batch_norm.cuh"
#include "color.cuh"
#include "info_nce.cuh"
#include "pool.cuh"

#define GLUE(name, suffix) name##_##suffix
#define NAMED(name, suffix) GLUE(name, suffix)
#define KERNEL(name) extern "C" __global__ void NAMED(name, SUFFIX)

#define T float
#define SUFFIX f32
#include "typed.inc"
#undef T
#undef SUFFIX

#define T bf16
#define SUFFIX bf16
#include "typed.inc"
#undef T
#undef SUFFIX
#undef KERNEL

#define KERNEL(name) extern "C" __global__ void name
#include "batch_norm_sums.inc"
#include "updates.inc"
#include "rows.inc"
#include "info_nce_merge.inc"
#include "images.inc"
