// Prefetching: the next batches are assembled (batch.h) by threads of its own, into memory that the caller
// owns and uses again, while the model computes.
//
// A slot is such memory, of one batch. It is free at first, under way from submit() to wait(), and free
// again after it. Samples are taken one by one, those of the slot that was submitted first before others.
// What a sample becomes depends on the settings, the epoch, its index and its repeat alone, not on threads.
//
// The stored images are expected in mapped files. One that is cut short kills the process that reads it,
// one that is written to gives pixels of no data set. So each sample looks first whether the files are
// what they were, which leaves only the moment in which it reads.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../augment.h"
#include "../batch.h"

namespace dsareid {

struct StoredFile {
  int descriptor;    // open as long as the prefetcher
  int64_t size;      // bytes, as fstat() must find it
  int64_t mtime_ns;  // nanoseconds since 1970, likewise
};

struct SlotMemory {
  void* image;  // [batch, 3, height, width], as BatchCall
  void* dsap;   // [batch, parts, 3, size, size]; null where the call has no iuv
};

struct PrefetchSettings {
  // What to make. Not used: index, drawn, image, dsap, and the resize tables with their taps.
  dsa::BatchCall call;
  dsa::AugmentSettings augment;
  uint64_t seed;
  std::vector<StoredFile> files;
  std::vector<SlotMemory> slots;
  int threads;  // at least 1
};

// A sample of a batch could not be assembled.
struct SampleError : std::runtime_error {
  SampleError(const std::string& problem, int position_, int64_t index_)
      : std::runtime_error(problem), position(position_), index(index_) {}

  int position;   // in the batch
  int64_t index;  // of the image, as submitted
};

class Prefetcher {
 public:
  // Throws std::invalid_argument without a thread, a slot or a sample; std::system_error where the system
  // has no more threads.
  explicit Prefetcher(const PrefetchSettings& settings);
  ~Prefetcher();  // closes it
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // Begins a batch; index and repeat are [batch] and are copied. Throws std::invalid_argument for a slot
  // that does not exist or is under way and for a repeat that is not 0..2^32 - 1.
  void submit(int slot, uint32_t epoch, const int64_t* index, const int64_t* repeat);

  // Waits for a batch; false: it is not done yet after this time. Throws the SampleError of its first
  // sample, in the order of the batch, that has one; the slot is free then, too. Throws
  // std::invalid_argument for a slot that is not under way.
  [[nodiscard]] bool wait(int slot, std::chrono::milliseconds limit);

  // Drops what has not begun and waits for the threads to end: nothing is written to the slots any more.
  // Every wait() that has begun or begins throws then, as does submit(). Does nothing the second time.
  void close();

  // A forked child has none of the threads, and what they held locked stays locked. There, submit() and
  // wait() throw std::runtime_error, and closing or destroying it does nothing.

 private:
  struct State;
  State& own() const;
  bool foreign() const;

  pid_t process_;
  std::unique_ptr<State> state_;
};

}  // namespace dsareid
