// Between the scheduler and the counters (counters.cpp); without SIMT_COUNT they do nothing.
#pragma once

#include <cstddef>

namespace simt {

bool in_kernel();
unsigned warp();
unsigned thread();

#if defined(SIMT_COUNT)
void count_launch(const char* kernel);
void count_launch_end();
void count_block(const unsigned char* shared, size_t bytes);
void count_block_end();
#else
inline void count_launch(const char*) {}
inline void count_launch_end() {}
inline void count_block(const unsigned char*, size_t) {}
inline void count_block_end() {}
#endif

}  // namespace simt
