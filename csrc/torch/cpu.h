// Threads of the CPU backend.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <atomic>

namespace dsa {

// Calls work(0) to work(count - 1) on torch's threads. Units differ in work, and threads in speed on a
// busy machine: each thread takes the next one.
template <class Work>
void for_each_unit(int64_t count, Work work) {
  std::atomic<int64_t> next = 0;
  torch::stable::parallel_for(0, torch::stable::get_num_threads(), 1, [&](int64_t, int64_t) {
    for (int64_t unit = next++; unit < count; unit = next++) work(unit);
  });
}

}  // namespace dsa
