#include "prefetch.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "../resize.h"

namespace dsareid {
namespace {

// The table of resize.h, for one dimension.
struct Table {
  int taps;
  std::vector<int32_t> values;

  Table(int in, int out) : taps(dsa::resize_taps(in, out)), values(int64_t{out} * (1 + taps)) {
    dsa::resize_table(in, out, taps, values.data());
  }
};

// A slot and the batch in it.
struct Slot {
  dsa::BatchCall call;  // of this slot's memory and the vectors below
  std::vector<int64_t> index;
  std::vector<uint32_t> repeat;
  std::vector<dsa::Augmentation> drawn;
  uint32_t epoch = 0;

  bool under_way = false;
  int next = 0;     // the first sample that no thread has taken
  int left = 0;     // samples that are not done
  int failed = -1;  // the first sample, in the order of the batch, that could not be assembled
  std::string problem;

  Slot(const dsa::BatchCall& call_, const Table& rows, const Table& columns, const SlotMemory& memory)
      : call(call_), index(call.batch), repeat(call.batch), drawn(call.batch) {
    call.rows = rows.values.data(), call.row_taps = rows.taps;
    call.columns = columns.values.data(), call.column_taps = columns.taps;
    call.index = index.data(), call.drawn = drawn.data();
    call.image = memory.image, call.dsap = memory.dsap;
  }
  Slot(Slot&&) = default;  // the vectors keep their memory, so call stays right
};

std::vector<Slot> make_slots(const PrefetchSettings& settings, const Table& rows, const Table& columns) {
  std::vector<Slot> slots;
  for (const SlotMemory& memory : settings.slots) slots.emplace_back(settings.call, rows, columns, memory);
  return slots;
}

void check_unchanged(const StoredFile& file) {
  struct stat found;
  if (fstat(file.descriptor, &found) != 0) {
    throw std::runtime_error(std::string("the store cannot be read any more: ") + std::strerror(errno));
  }
  const int64_t mtime_ns = found.st_mtim.tv_sec * int64_t{1'000'000'000} + found.st_mtim.tv_nsec;
  if (found.st_size == file.size && mtime_ns == file.mtime_ns) return;
  std::string change = "a file was written to";
  if (found.st_size != file.size) {
    change = "a file of " + std::to_string(file.size) + " bytes has " + std::to_string(found.st_size);
  }
  throw std::runtime_error("the store changed while it was being read: " + change);
}

}  // namespace

struct Prefetcher::State {
  explicit State(const PrefetchSettings& settings);
  void start();
  void work();
  void assemble(Slot& slot, int sample) const;
  Slot& at(int slot);
  void close();

  const PrefetchSettings settings;
  const Table rows, columns;
  std::vector<Slot> slots;
  const dsa::BatchTables tables;

  std::mutex mutex;  // guards all below and the slots; threads read the samples they took without it
  std::condition_variable work_to_do, slot_done;
  std::vector<int> queue;  // slots with samples that nobody has taken, in the order of submission
  bool closed = false;

  std::mutex joining;  // held until the threads have ended, so that every close() returns after it
  std::vector<std::thread> threads;
};

Prefetcher::State::State(const PrefetchSettings& settings_)
    : settings(settings_),
      rows(settings.call.stored_height, settings.call.height),
      columns(settings.call.stored_width, settings.call.width),
      slots(make_slots(settings, rows, columns)),
      tables(slots.front().call) {
  queue.reserve(slots.size());
}

void Prefetcher::State::start() {
  try {
    for (int i = 0; i < settings.threads; ++i) threads.emplace_back([this] { work(); });
  } catch (...) {  // the system has no more threads
    close();
    throw;
  }
}

// Unless closed, as long as there is a sample to take at least one thread is awake or about to be: submit()
// wakes one, and a thread that takes a sample and leaves others wakes the next.
void Prefetcher::State::work() {
  std::unique_lock lock(mutex);
  while (true) {
    work_to_do.wait(lock, [this] { return closed || !queue.empty(); });
    if (closed) return;
    Slot& slot = slots[queue.front()];
    const int sample = slot.next++;
    if (slot.next == slot.call.batch) queue.erase(queue.begin());
    const bool more = !queue.empty();
    lock.unlock();
    if (more) work_to_do.notify_one();
    std::string problem;
    bool failed = false;
    try {
      assemble(slot, sample);
    } catch (const std::exception& error) {
      failed = true, problem = error.what();
    }
    lock.lock();
    if (failed && (slot.failed < 0 || sample < slot.failed)) {
      slot.failed = sample, slot.problem = std::move(problem);
    }
    if (--slot.left == 0) slot_done.notify_all();
  }
}

void Prefetcher::State::assemble(Slot& slot, int sample) const {
  const int64_t index = slot.index[sample];
  if (index < 0 || index >= settings.call.images_stored) {
    throw std::out_of_range("index " + std::to_string(index) + " is outside of the store, 0.." +
                            std::to_string(settings.call.images_stored - 1));
  }
  for (const StoredFile& file : settings.files) check_unchanged(file);
  slot.drawn[sample] = dsa::draw_augmentation(settings.augment, settings.seed, slot.epoch,
                                              static_cast<uint32_t>(index), slot.repeat[sample]);
  dsa::assemble_cpu(slot.call, tables, sample);
}

Slot& Prefetcher::State::at(int slot) {
  if (closed) throw std::runtime_error("the prefetcher is closed");
  if (slot < 0 || slot >= static_cast<int>(slots.size())) {
    throw std::invalid_argument("slot must be 0.." + std::to_string(slots.size() - 1) + ", not " +
                                std::to_string(slot));
  }
  return slots[slot];
}

void Prefetcher::State::close() {
  const std::scoped_lock join(joining);
  {
    const std::scoped_lock lock(mutex);
    closed = true;
  }
  work_to_do.notify_all(), slot_done.notify_all();
  for (std::thread& thread : threads) thread.join();
  threads.clear();
}

Prefetcher::Prefetcher(const PrefetchSettings& settings) : process_(getpid()) {
  if (settings.threads < 1) throw std::invalid_argument("threads must be at least 1");
  if (settings.slots.empty()) throw std::invalid_argument("there must be at least one slot");
  if (settings.call.batch < 1) throw std::invalid_argument("batch must be at least 1");
  state_ = std::make_unique<State>(settings);
  state_->start();
}

Prefetcher::~Prefetcher() {
  // Never freed in a child: destroying a condition variable waits for its threads, and a child has none.
  if (foreign()) {
    static_cast<void>(state_.release());
  } else {
    close();
  }
}

bool Prefetcher::foreign() const { return getpid() != process_; }

Prefetcher::State& Prefetcher::own() const {
  if (foreign()) {
    throw std::runtime_error("the prefetcher belongs to another process, " + std::to_string(process_) +
                             ": a forked child must make its own");
  }
  return *state_;
}

void Prefetcher::close() {
  if (!foreign()) state_->close();
}

void Prefetcher::submit(int number, uint32_t epoch, const int64_t* index, const int64_t* repeat) {
  State& state = own();
  const int batch = state.settings.call.batch;
  for (int i = 0; i < batch; ++i) {
    if (repeat[i] < 0 || repeat[i] > UINT32_MAX) {
      throw std::invalid_argument("repeat must be 0..2^32 - 1, but sample " + std::to_string(i) + " has " +
                                  std::to_string(repeat[i]));
    }
  }
  {
    const std::scoped_lock lock(state.mutex);
    Slot& slot = state.at(number);
    if (slot.under_way) {
      throw std::invalid_argument("slot " + std::to_string(number) + " is under way: wait for it first");
    }
    std::copy_n(index, batch, slot.index.begin());
    std::copy_n(repeat, batch, slot.repeat.begin());
    slot.epoch = epoch;
    slot.under_way = true, slot.next = 0, slot.left = batch, slot.failed = -1;
    state.queue.push_back(number);
  }
  state.work_to_do.notify_one();
}

bool Prefetcher::wait(int number, std::chrono::milliseconds limit) {
  State& state = own();
  std::unique_lock lock(state.mutex);
  Slot& slot = state.at(number);
  const bool done = state.slot_done.wait_for(lock, limit, [&] { return state.closed || slot.left == 0; });
  state.at(number);  // throws if it was closed meanwhile
  if (!done) return false;
  if (!slot.under_way) {
    throw std::invalid_argument("slot " + std::to_string(number) + " is not under way: submit to it first");
  }
  slot.under_way = false;
  if (slot.failed >= 0) throw SampleError(slot.problem, slot.failed, slot.index[slot.failed]);
  return true;
}

}  // namespace dsareid
