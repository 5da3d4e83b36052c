// What CUDA gives a kernel, on the host: indices, barriers, shuffles, shared memory and bf16.
//
// A block runs as one fiber a thread (emulator.cpp). It shows wrong indices, bounds, tails, reductions
// and missing barriers; it cannot show real scheduling, memory order, alignment faults or speed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// One block runs at a time, so a static variable is shared by exactly the threads of a block.
#define __shared__ static

struct Index3 {
    unsigned x = 0, y = 0, z = 0;
};

namespace moco_host {
extern Index3 thread_index, block_index, block_dim, grid_dim;
extern unsigned char* dynamic_shared;
void barrier();
// Every lane of the warp gives `bits` and gets those of lane `from`.
uint64_t exchange(uint64_t bits, unsigned from);
}  // namespace moco_host

#define threadIdx (::moco_host::thread_index)
#define blockIdx (::moco_host::block_index)
#define blockDim (::moco_host::block_dim)
#define gridDim (::moco_host::grid_dim)
#define __syncthreads() (::moco_host::barrier())
#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(::moco_host::dynamic_shared)

template <class V>
V moco_host_shuffle(V value, unsigned from) {
    uint64_t bits = 0;
    static_assert(sizeof(V) <= sizeof(bits), "a shuffle moves up to 8 bytes");
    std::memcpy(&bits, &value, sizeof(V));
    bits = moco_host::exchange(bits, from);
    std::memcpy(&value, &bits, sizeof(V));
    return value;
}
#define MOCO_LANE (threadIdx.x % 32)
#define __shfl_xor_sync(mask, value, d) moco_host_shuffle(value, MOCO_LANE ^ (d))
#define __shfl_sync(mask, value, lane) moco_host_shuffle(value, (lane))
#define __shfl_down_sync(mask, value, d) \
    moco_host_shuffle(value, MOCO_LANE + (d) < 32 ? MOCO_LANE + (d) : MOCO_LANE)

using std::fmaf;
using std::fmaxf;
using std::fminf;
using std::sqrt;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
// On a device these are never fused with their neighbors.
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fadd_rn(float x, float y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
}

struct bf16 {
    uint16_t bits;
};
inline float bf16_to_float(bf16 x) {
    const uint32_t wide = uint32_t(x.bits) << 16;
    float out;
    std::memcpy(&out, &wide, sizeof(out));
    return out;
}
// To the nearest, ties to even, as cvt.rn.bf16.f32.
inline bf16 float_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof(bits));
    if (x != x) return {uint16_t(0x7fff)};
    bits += 0x7fff + ((bits >> 16) & 1);
    return {uint16_t(bits >> 16)};
}
