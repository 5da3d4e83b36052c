// Reading and writing several numbers at a time, and the sums that threads of a block add up.
#pragma once
#include "base.cuh"

// Asks for n turns of the next loop at once, so that as many loads are under way.
#ifdef MOCO_HOST
#define UNROLL(n)
#else
#define MOCO_PRAGMA(text) _Pragma(#text)
#define UNROLL(n) MOCO_PRAGMA(unroll n)
#endif

// Numbers of an access of 16 bytes, for arrays whose rows have a multiple of them.
template <class S>
constexpr u32 VECTOR = 16 / sizeof(S);

template <u32 V, class S>
__device__ __forceinline__ void read(const S* from, float (&to)[V]) {
    const Pack<S, V> numbers = *reinterpret_cast<const Pack<S, V>*>(from);
    for (u32 v = 0; v < V; v++) to[v] = load(numbers.v[v]);
}

template <u32 V, class S>
__device__ __forceinline__ void write(S* to, const float (&from)[V]) {
    Pack<S, V> numbers;
    for (u32 v = 0; v < V; v++) store(&numbers.v[v], from[v]);
    *reinterpret_cast<Pack<S, V>*>(to) = numbers;
}
