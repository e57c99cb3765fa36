#pragma once

#include <cstdint>

namespace braid::kernels {

// Floats that one CTA hands to another through global memory. They are zero until they are there,
// and whoever takes them clears them: no fence, no counter. A number that is zero goes as -0. PTX
// ISA 8.x, "Memory consistency model": each float of a vector is an access of its own.

__device__ __forceinline__ float never_zero(float x) {
  return __float_as_uint(x) == 0 ? __uint_as_float(0x80000000u) : x;
}
__device__ __forceinline__ bool is_there(const float2& v) {
  return min(__float_as_uint(v.x), __float_as_uint(v.y)) != 0;
}
__device__ __forceinline__ bool is_there(const float4& v) {
  return min(min(__float_as_uint(v.x), __float_as_uint(v.y)),
             min(__float_as_uint(v.z), __float_as_uint(v.w))) != 0;
}

__device__ __forceinline__ void post(float2* to, const float2& v) {
  asm volatile("st.relaxed.gpu.global.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(never_zero(v.x)),
               "f"(never_zero(v.y))
               : "memory");
}
__device__ __forceinline__ void post(float4* to, const float4& v) {
  asm volatile("st.relaxed.gpu.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to),
               "f"(never_zero(v.x)), "f"(never_zero(v.y)), "f"(never_zero(v.z)),
               "f"(never_zero(v.w))
               : "memory");
}

// As they are now.
__device__ __forceinline__ float2 look(const float2* from) {
  float2 v;
  asm volatile("ld.relaxed.gpu.global.v2.f32 {%0, %1}, [%2];"
               : "=f"(v.x), "=f"(v.y)
               : "l"(from)
               : "memory");
  return v;
}
__device__ __forceinline__ float4 look(const float4* from) {
  float4 v;
  asm volatile("ld.relaxed.gpu.global.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

}  // namespace braid::kernels
