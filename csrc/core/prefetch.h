// Prefetching: threads of the prefetcher assemble the next batches (batch.h) while the model computes, into
// memory that the caller owns and reuses.
//
// A slot is the memory of one batch. It is free at first, under way from submit() to wait(), and free again
// after it. Threads take samples one by one, first those of the slot that was submitted first.
// What a sample becomes depends on the settings, the epoch, its index and its repeat alone, not on threads.
//
// The stored images are expected in mapped files. Reading a mapped file that was cut short kills the
// process, and one that is being written to gives wrong pixels. So before each sample the files are checked
// to be unchanged, which leaves only the moment of reading.
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
  void* dsap;   // [batch, parts, 3, size, size]; null if the call has no iuv
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
  // Throws std::invalid_argument if threads, slots or samples are none; std::system_error if the system has
  // no more threads.
  explicit Prefetcher(const PrefetchSettings& settings);
  ~Prefetcher();  // closes it
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  // Begins a batch; index and repeat are [batch] and are copied. Throws std::invalid_argument for a slot
  // that does not exist or is under way and for a repeat that is not 0..2^32 - 1.
  void submit(int slot, uint32_t epoch, const int64_t* index, const int64_t* repeat);

  // Waits for a batch; false: it is not done yet after this time. If samples failed, throws the SampleError
  // of the first one in the order of the batch; the slot is free then, too. Throws std::invalid_argument
  // for a slot that is not under way.
  [[nodiscard]] bool wait(int slot, std::chrono::milliseconds limit);

  // Drops what has not begun and waits for the threads to end: nothing is written to the slots any more.
  // From then on every wait() throws, also one that has begun, and so does submit(). A second call does
  // nothing.
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
