// The scheduler: blocks on host threads, CUDA threads as fibers, barriers, poisoned shared memory.
//
// This file is compiled without instrumentation, so that the sanitizers see the kernels alone; it
// tells them about its fibers and about the order that barriers make. Beside those only one thing
// orders two threads of a launch, whatever the sequence they really run in: blocks of the same
// worker, which use the same shared memory, come one after the other.
#include "simt.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "hooks.h"

#if defined(SIMT_TSAN)
extern "C" {
void* __tsan_create_fiber(unsigned flags);
void* __tsan_get_current_fiber();
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
}
#endif
#if defined(SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace simt {

Settings settings;

namespace {

constexpr size_t kStackBytes = 64 << 10;

[[noreturn]] void fail(const char* kernel, dim3 block, const char* what, unsigned thread) {
  std::fprintf(stderr, "simt: %s, block (%u, %u, %u), thread %u: %s\n", kernel, block.x, block.y, block.z,
               thread, what);
  std::_Exit(3);
}

// What ThreadSanitizer must know: `leave` before a wait and `enter` after it order all that came
// before in the threads that left before all that follows in those that entered.
struct Order {
  char address;
  void leave() {
#if defined(SIMT_TSAN)
    __tsan_release(&address);
#endif
  }
  void enter() {
#if defined(SIMT_TSAN)
    __tsan_acquire(&address);
#endif
  }
};

enum class State { ready, at_barrier, at_warp_barrier, done };

struct Fiber {
  void* stack_pointer = nullptr;
  State state = State::done;
  int site = 0;       // the barrier it waits at
  unsigned mask = 0;  // the lanes it waits for
  Index index;
  unsigned number = 0;  // in its block
  char* stack = nullptr;
  void* tsan = nullptr;
  void* fake_stack = nullptr;
};

struct Warp {
  unsigned arrived = 0;
  uint64_t value[32];
  Order order;
};

// One host thread that runs blocks, with the fibers it uses again for each.
struct Worker {
  std::vector<std::unique_ptr<Fiber>> fibers;
  std::vector<Warp> warps;
  std::vector<Fiber*> schedule;
  Fiber* current = nullptr;
  void* stack_pointer = nullptr;
  void* tsan = nullptr;
  void* fake_stack = nullptr;
  const void* stack_bottom = nullptr;
  size_t stack_size = 0;
  const char* kernel = nullptr;
  const std::function<void()>* body = nullptr;
  unsigned char* shared = nullptr;
  unsigned threads = 0, waiting = 0;
  unsigned random = 0;
  Order start, barrier[2], end;
  unsigned passed = 0;  // barriers

  void prepare(unsigned threads);
  void run(dim3 block, dim3 block_size, dim3 grid_size, size_t shared_bytes);
  void resume(Fiber& fiber);
  void wait();
  void arrange();
  [[noreturn]] void stuck();
};

thread_local Worker* worker = nullptr;

}  // namespace

// Saves the callee's registers on this stack, its top in *from, and goes on with stack `to`.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.text
.globl simt_switch
.type simt_switch, @function
simt_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size simt_switch, .-simt_switch
)");

namespace {

void fiber_main() {
  Worker& w = *worker;
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &w.stack_bottom, &w.stack_size);
#endif
  w.start.enter();
  (*w.body)();
  w.end.leave();
  w.current->state = State::done;
  w.wait();
  std::abort();  // a fiber that is done is not resumed
}

// Back to the worker's loop; returns when the worker resumes this fiber.
void Worker::wait() {
  Fiber& fiber = *current;
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(tsan, 1);  // 1: this orders nothing
#endif
#if defined(SIMT_ASAN)
  const bool leaves = fiber.state == State::done;
  __sanitizer_start_switch_fiber(leaves ? nullptr : &fiber.fake_stack, stack_bottom, stack_size);
#endif
  simt_switch(&fiber.stack_pointer, stack_pointer);
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &stack_bottom, &stack_size);
#endif
}

void Worker::resume(Fiber& fiber) {
  current = &fiber;
#if defined(SIMT_TSAN)
  __tsan_switch_to_fiber(fiber.tsan, 1);
#endif
#if defined(SIMT_ASAN)
  __sanitizer_start_switch_fiber(&fake_stack, fiber.stack, kStackBytes);
#endif
  simt_switch(&stack_pointer, fiber.stack_pointer);
#if defined(SIMT_ASAN)
  __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  current = nullptr;
}

void Worker::prepare(unsigned count) {
  threads = count, waiting = 0;
  warps.assign((count + 31) / 32, Warp{});
  while (fibers.size() < count) {
    auto fiber = std::make_unique<Fiber>();
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    void* memory = mmap(nullptr, kStackBytes + page, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, page, PROT_NONE) != 0) std::abort();
    fiber->stack = static_cast<char*>(memory) + page;  // below it lies a page that faults
    fiber->number = static_cast<unsigned>(fibers.size());
#if defined(SIMT_TSAN)
    fiber->tsan = __tsan_create_fiber(0);
#endif
    fibers.push_back(std::move(fiber));
  }
  schedule.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    schedule[i] = fibers[settings.order == Settings::reverse ? count - 1 - i : i].get();
  }
}

// Random orders are drawn anew for each stretch between barriers.
void Worker::arrange() {
  if (settings.order != Settings::shuffled) return;
  for (unsigned i = threads; i > 1; --i) {
    random = random * 1664525u + 1013904223u;
    std::swap(schedule[i - 1], schedule[(random >> 8) % i]);
  }
}

void Worker::run(dim3 block, dim3 block_size, dim3 grid_size, size_t shared_bytes) {
  prepare(block_size.x * block_size.y * block_size.z);
  // A heap block of exactly the bytes asked for: AddressSanitizer guards its ends.
  shared = static_cast<unsigned char*>(std::aligned_alloc(16, shared_bytes + 15 & ~size_t{15}));
  std::memset(shared, settings.poison, shared_bytes);
#if defined(SIMT_ASAN)
  if (shared_bytes % 16) __asan_poison_memory_region(shared + shared_bytes, 16 - shared_bytes % 16);
#endif
  count_block(shared, shared_bytes);
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.state = State::ready;
    fiber.index = {dim3(i % block_size.x, i / block_size.x % block_size.y, i / (block_size.x * block_size.y)),
                   block, block_size, grid_size};
    void** top = reinterpret_cast<void**>(fiber.stack + kStackBytes);
    *--top = nullptr;  // the stack's end, and 16-byte alignment at the entry
    *--top = reinterpret_cast<void*>(&fiber_main);
    for (int saved = 0; saved < 6; ++saved) *--top = nullptr;
    fiber.stack_pointer = top;
  }
  start.leave();
  for (bool moved = true; moved;) {
    moved = false;
    arrange();
    for (Fiber* fiber : schedule) {
      if (fiber->state != State::ready) continue;
      resume(*fiber);
      moved = true;
    }
  }
  for (Fiber* fiber : schedule) {
    if (fiber->state != State::done) stuck();
  }
  end.enter();  // the next block of this worker may use the same memory
  count_block_end();
#if defined(SIMT_ASAN)
  __asan_unpoison_memory_region(shared, shared_bytes + 15 & ~size_t{15});
#endif
  std::free(shared);
}

void Worker::stuck() {
  for (unsigned i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    if (fiber.state == State::done) continue;
    fail(kernel, fiber.index.block,
         fiber.state == State::at_barrier
             ? "waits at __syncthreads() while others have returned or wait elsewhere"
             : "waits for the lanes of its mask, some of which have returned or wait elsewhere",
         i);
  }
  std::abort();
}

}  // namespace

// Dynamic shared memory beyond 48 KB, by the kernel that asked for it.
static std::map<const void*, int>& asked_shared() {
  static std::map<const void*, int> bytes;
  return bytes;
}

void launch(const char* kernel, const void* function, dim3 grid, dim3 block, size_t shared_bytes,
            const std::function<void()>& body) {
  const dim3 none(0, 0, 0);
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024) fail(kernel, none, "a block has 1 to 1024 threads", 0);
  if (!grid.x || !grid.y || !grid.z) fail(kernel, none, "the grid is empty", 0);
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    fail(kernel, none, "the grid is larger than CUDA's limits", 0);
  }
  if (shared_bytes > static_cast<size_t>(std::max(48 << 10, asked_shared()[function]))) {
    fail(kernel, none, "asks for more shared memory than it may have", 0);
  }
  count_launch(kernel);
  const int workers = std::max(1, settings.workers);
  const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
  static std::vector<std::unique_ptr<Worker>> pool;
  while (pool.size() < static_cast<size_t>(workers)) pool.push_back(std::make_unique<Worker>());
  auto work = [&](int me) {
    worker = pool[me].get();
    worker->kernel = kernel, worker->body = &body;
    worker->random = settings.seed * 2654435761u + static_cast<unsigned>(me);
#if defined(SIMT_TSAN)
    worker->tsan = __tsan_get_current_fiber();
#endif
    for (uint64_t b = me; b < blocks; b += workers) {
      const dim3 at(b % grid.x, b / grid.x % grid.y, b / grid.x / grid.y);
      worker->run(at, block, grid, shared_bytes);
    }
    worker = nullptr;
  };
  if (workers == 1) {
    work(0);
  } else {
    std::vector<std::thread> hosts;
    for (int me = 0; me < workers; ++me) hosts.emplace_back(work, me);
    for (std::thread& host : hosts) host.join();
  }
  count_launch_end();
}

const Index& index() { return worker->current->index; }
unsigned char* shared_memory() { return worker->shared; }
unsigned lane() { return worker->current->number % 32; }
unsigned warp() { return worker->current->number / 32; }
bool in_kernel() { return worker && worker->current; }
unsigned thread() { return worker->current->number; }

void barrier(int site) {
  Worker& w = *worker;
  if (site && site == settings.planted) return;
  Fiber& me = *w.current;
  Order& order = w.barrier[w.passed % 2];
  order.leave();
  me.state = State::at_barrier, me.site = site;
  if (++w.waiting < w.threads) {
    w.wait();
  } else {
    for (unsigned i = 0; i < w.threads; ++i) {
      Fiber& other = *w.fibers[i];
      if (other.site != site) fail(w.kernel, me.index.block, "waits at another __syncthreads()", i);
      other.state = State::ready;
    }
    w.waiting = 0, ++w.passed;
  }
  order.enter();
}

namespace {
// Waits until every lane of `mask` is here.
void meet(unsigned mask) {
  Worker& w = *worker;
  Fiber& me = *w.current;
  Warp& warp = w.warps[me.number / 32];
  const unsigned first = me.number & ~31u;
  const unsigned lanes = std::min(32u, w.threads - first);
  if (lanes < 32) mask &= (1u << lanes) - 1;
  if (!(mask >> lane() & 1)) fail(w.kernel, me.index.block, "is not in its own mask", me.number);
  warp.arrived |= 1u << lane();
  me.state = State::at_warp_barrier, me.mask = mask;
  if ((warp.arrived & mask) != mask) return w.wait();
  warp.arrived &= ~mask;
  for (unsigned i = 0; i < lanes; ++i) {
    if (!(mask >> i & 1)) continue;
    Fiber& other = *w.fibers[first + i];
    if (other.mask != mask) fail(w.kernel, me.index.block, "gave another mask", first + i);
    other.state = State::ready;
  }
}
}  // namespace

void barrier_warp(unsigned mask) {
  Order& order = worker->warps[warp()].order;
  order.leave();
  meet(mask);
  order.enter();
}

const uint64_t* exchange(unsigned mask, uint64_t value) {
  thread_local uint64_t values[32];
  Warp& warp_ = worker->warps[warp()];
  warp_.value[lane()] = value;
  meet(mask);
  uint64_t copy[32];
  for (int i = 0; i < 32; ++i) copy[i] = warp_.value[i];  // no memcpy: ThreadSanitizer sees those
  meet(mask);                                             // all have read before anyone writes again
  for (int i = 0; i < 32; ++i) values[i] = copy[i];
  return values;  // read at once, before this fiber waits again
}

}  // namespace simt

// The few functions of the CUDA runtime that launches call.
extern "C" {
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = simt::settings.multiprocessors; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = simt::settings.shared_bytes; break;
    default: return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaErrorInvalidValue;
  if (value > simt::settings.shared_bytes) return cudaErrorInvalidValue;
  simt::asked_shared()[function] = value;
  return cudaSuccess;
}
}
