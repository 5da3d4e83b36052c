// Numbers, indices and reductions that all kernels share. Compiled by nvcc for devices, and by a C++
// compiler with host/shim.h for tests.
#pragma once

#ifdef MOCO_HOST
#include "host/shim.h"
#else
#include <cuda_bf16.h>
typedef __nv_bfloat16 bf16;
__device__ __forceinline__ float bf16_to_float(bf16 x) { return __bfloat162float(x); }
__device__ __forceinline__ bf16 float_to_bf16(float x) { return __float2bfloat16_rn(x); }
#define DYNAMIC_SHARED(type, name)                             \
    extern __shared__ __align__(16) unsigned char shared_raw[]; \
    type* name = reinterpret_cast<type*>(shared_raw)
#endif

typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// Arithmetic is done in f32; f32 and bf16 are how numbers are stored.
__device__ __forceinline__ float load(float x) { return x; }
__device__ __forceinline__ float load(bf16 x) { return bf16_to_float(x); }
__device__ __forceinline__ void store(float* to, float x) { *to = x; }
__device__ __forceinline__ void store(bf16* to, float x) { *to = float_to_bf16(x); }

// N numbers that are read and written as one access of up to 16 bytes.
template <class T, u32 N>
struct __align__(sizeof(T) * N) Pack {
    T v[N];
};

// The index of this thread in a one-dimensional grid, and the number of threads: `for (u64 i =
// first_index(); i < n; i += all_threads())` visits every i < n for any grid.
__device__ __forceinline__ u64 first_index() { return u64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ __forceinline__ u64 all_threads() { return u64(gridDim.x) * blockDim.x; }

// The index itself. A build with the feature `wrong-index` has a fault seeded here, which checks must find.
__device__ __forceinline__ u64 seeded(u64 i) {
#ifdef MOCO_WRONG_INDEX
    return i >= 40 && i < 48 ? i ^ 1 : i;
#else
    return i;
#endif
}

// The sum of a value over the lanes of a warp, in every lane; all lanes of the warp must call it.
template <class V>
__device__ __forceinline__ V warp_sum(V x) {
    for (u32 d = WARP / 2; d > 0; d /= 2) x += __shfl_xor_sync(ALL_LANES, x, d);
    return x;
}
