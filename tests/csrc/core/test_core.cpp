// Exercises csrc/core without Python: test_core CASE [ROUNDS]. Ends with 0 where all is as it should be.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/prefetch.h"
#include "core/sampler.h"
#include "philox.h"
#include "resize.h"

using namespace std::chrono_literals;
using dsareid::Prefetcher;
using dsareid::PrefetchSettings;

static std::atomic<long> allocations = 0;

void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

#define EXPECT(condition)                                                            \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
      std::_Exit(1);                                                                 \
    }                                                                                \
  } while (false)

template <class Error, class Work>
void expect_error(const std::string& words, Work work) {
  try {
    work();
  } catch (const Error& error) {
    if (std::string(error.what()).find(words) != std::string::npos) return;
    std::fprintf(stderr, "expected the error \"%s\", not \"%s\"\n", words.c_str(), error.what());
    std::_Exit(1);
  }
  std::fprintf(stderr, "expected the error \"%s\"\n", words.c_str());
  std::_Exit(1);
}

struct Shape {
  int batch = 8, height = 20, width = 10, size = 4;
  dsa::Type type = dsa::Type::float32;
  bool iuv = true, channels_last = false, augment = true;
};

// A store of small images, slots for batches of them, and what the prefetcher is to make.
struct World {
  static constexpr int kImages = 12, kStoredHeight = 16, kStoredWidth = 8;
  static constexpr unsigned char kPoison = 0xcd;

  std::vector<uint8_t> images, iuv;
  std::vector<std::vector<unsigned char>> image, dsap;  // of each slot, bytes
  PrefetchSettings settings{};

  World(int threads, int slots, Shape shape = {}) {
    const int bytes = kImages * kStoredHeight * kStoredWidth * 3;
    images.resize(bytes), iuv.resize(bytes);
    for (int i = 0; i < bytes; ++i) {
      const auto [word] = dsa::philox(1, i, 0, 0, 0);
      images[i] = word[0];
      iuv[i] = i % 3 == 0 ? word[1] % 30 : word[1];  // also parts that there are not
    }
    auto& call = settings.call;
    call.images_stored = kImages, call.stored_height = kStoredHeight, call.stored_width = kStoredWidth;
    call.images = images.data(), call.images_stride = bytes / kImages;
    if (shape.iuv) call.iuv = iuv.data(), call.iuv_stride = bytes / kImages;
    call.batch = shape.batch, call.height = shape.height, call.width = shape.width;
    call.size = shape.size, call.parts = dsa::kParts, call.type = shape.type, call.augmented_dsap = true;
    const int64_t area = shape.height * shape.width, cells = shape.size * shape.size;
    const bool last = shape.channels_last;
    const int64_t image_stride[] = {3 * area, last ? 1 : area, (last ? 3 : 1) * shape.width, last ? 3 : 1};
    const int64_t dsap_stride[] = {dsa::kParts * 3 * cells, 3 * cells, cells, shape.size, 1};
    std::copy_n(image_stride, 4, call.image_stride);
    std::copy_n(dsap_stride, 5, call.dsap_stride);
    for (int c = 0; c < 3; ++c) call.fill[c] = -c, call.normalise[c] = {true, 0.4f + 0.01f * c, 0.2f};
    settings.augment = {shape.height, shape.width, 0, 0, 0, 0, 0};
    if (shape.augment) settings.augment = {shape.height, shape.width, 3, 0.5, 0.5, 0.2, 0.2};
    settings.seed = 7, settings.threads = threads;
    const int64_t item = shape.type == dsa::Type::float32 ? 4 : 2;
    for (int slot = 0; slot < slots; ++slot) {
      image.emplace_back(item * shape.batch * image_stride[0], kPoison);
      dsap.emplace_back(shape.iuv ? item * shape.batch * dsap_stride[0] : 0, kPoison);
      settings.slots.push_back({image.back().data(), shape.iuv ? dsap.back().data() : nullptr});
    }
  }

  void poison(int slot) {
    std::fill(image[slot].begin(), image[slot].end(), kPoison);
    std::fill(dsap[slot].begin(), dsap[slot].end(), kPoison);
  }
};

// The samples of a batch: any, but the same ones for the same number.
struct Batch {
  uint32_t epoch;
  std::vector<int64_t> index, repeat;

  Batch(int number, int batch) : epoch(number / 3), index(batch), repeat(batch) {
    for (int i = 0; i < batch; ++i) {
      const auto [word] = dsa::philox(2, number, i, 0, 0);
      index[i] = word[0] % World::kImages, repeat[i] = word[1] % 3;
    }
  }
};

// Whether the slot holds what assemble_cpu makes of the batch.
bool is_right(const World& world, int slot, const Batch& batch) {
  dsa::BatchCall call = world.settings.call;
  call.row_taps = dsa::resize_taps(call.stored_height, call.height);
  call.column_taps = dsa::resize_taps(call.stored_width, call.width);
  std::vector<int32_t> rows(call.height * (1 + call.row_taps)), columns(call.width * (1 + call.column_taps));
  dsa::resize_table(call.stored_height, call.height, call.row_taps, rows.data());
  dsa::resize_table(call.stored_width, call.width, call.column_taps, columns.data());
  std::vector<dsa::Augmentation> drawn;
  for (int i = 0; i < call.batch; ++i) {
    drawn.push_back(dsa::draw_augmentation(world.settings.augment, world.settings.seed, batch.epoch,
                                           batch.index[i], batch.repeat[i]));
  }
  auto image = world.image[slot], dsap = world.dsap[slot];
  std::fill(image.begin(), image.end(), 0), std::fill(dsap.begin(), dsap.end(), 0);
  call.rows = rows.data(), call.columns = columns.data();
  call.index = batch.index.data(), call.drawn = drawn.data();
  call.image = image.data(), call.dsap = call.iuv ? dsap.data() : nullptr;
  const dsa::BatchTables tables(call);
  for (int i = 0; i < call.batch; ++i) dsa::assemble_cpu(call, tables, i);
  return image == world.image[slot] && dsap == world.dsap[slot];
}

void submit(Prefetcher& prefetcher, int slot, const Batch& batch) {
  prefetcher.submit(slot, batch.epoch, batch.index.data(), batch.repeat.data());
}

void wait(Prefetcher& prefetcher, int slot) {
  while (!prefetcher.wait(slot, 1000ms)) continue;
}

// ---- cases ----

void results_equal_direct_calls(int rounds) {
  Shape half, plain, last;
  half.type = dsa::Type::bfloat16, half.size = 9;
  plain.iuv = false, plain.augment = false, plain.height = 16, plain.width = 8;
  last.channels_last = true, last.height = 7, last.batch = 3;
  for (const Shape& shape : {Shape(), half, plain, last}) {
    for (const int threads : {1, 2, 5}) {
      World world(threads, 3, shape);
      Prefetcher prefetcher(world.settings);
      for (int number = 0; number < rounds + 2; ++number) {  // two ahead of the model
        if (number < rounds) {
          world.poison(number % 3);
          submit(prefetcher, number % 3, Batch(number, shape.batch));
        }
        if (number < 2) continue;
        wait(prefetcher, (number - 2) % 3);
        EXPECT(is_right(world, (number - 2) % 3, Batch(number - 2, shape.batch)));
      }
    }
  }
}

void slots_in_any_order(int rounds) {
  constexpr int kSlots = 6;
  World world(3, kSlots);
  Prefetcher prefetcher(world.settings);
  for (int number = 0; number < rounds; ++number) {
    for (int slot = 0; slot < kSlots; ++slot) submit(prefetcher, slot, Batch(number + slot, 8));
    for (int slot = kSlots - 1; slot >= 0; --slot) {
      wait(prefetcher, slot);
      EXPECT(is_right(world, slot, Batch(number + slot, 8)));
    }
  }
}

void oldest_slot_first(int rounds) {
  Shape large;
  large.batch = 64;  // so that all are under way before the first is done
  World world(1, 4, large);
  Prefetcher prefetcher(world.settings);
  for (int number = 0; number < rounds; ++number) {
    for (const int slot : {2, 0, 3, 1}) submit(prefetcher, slot, Batch(number, 64));
    wait(prefetcher, 1);
    for (const int slot : {3, 0, 2}) EXPECT(prefetcher.wait(slot, 0ms));
  }
}

void waiting_has_a_limit(int) {
  Shape large;
  large.batch = 512;
  World world(1, 1, large);
  Prefetcher prefetcher(world.settings);
  bool in_vain = false;
  for (int number = 0; number < 20 && !in_vain; ++number) {
    submit(prefetcher, 0, Batch(number, 512));
    in_vain = !prefetcher.wait(0, 0ms);
    if (in_vain) wait(prefetcher, 0);
  }
  EXPECT(in_vain);
}

void misuse_is_an_error(int) {
  World world(2, 2);
  Prefetcher prefetcher(world.settings);
  Batch batch(0, 8);
  const auto no_thread = [&](int threads, size_t slots, int samples) {
    PrefetchSettings settings = world.settings;
    settings.threads = threads, settings.call.batch = samples;
    settings.slots.resize(slots);
    Prefetcher made(settings);
  };
  expect_error<std::invalid_argument>("threads must be at least 1", [&] { no_thread(0, 2, 8); });
  expect_error<std::invalid_argument>("at least one slot", [&] { no_thread(1, 0, 8); });
  expect_error<std::invalid_argument>("batch must be at least 1", [&] { no_thread(1, 2, 0); });
  expect_error<std::invalid_argument>("slot must be 0..1, not 2", [&] { submit(prefetcher, 2, batch); });
  expect_error<std::invalid_argument>("slot must be 0..1, not -1", [&] { wait(prefetcher, -1); });
  expect_error<std::invalid_argument>("slot 1 is not under way", [&] { wait(prefetcher, 1); });
  submit(prefetcher, 1, batch);
  expect_error<std::invalid_argument>("slot 1 is under way", [&] { submit(prefetcher, 1, batch); });
  wait(prefetcher, 1);
  expect_error<std::invalid_argument>("slot 1 is not under way", [&] { wait(prefetcher, 1); });
  batch.repeat[3] = int64_t{1} << 32;
  expect_error<std::invalid_argument>("sample 3 has 4294967296", [&] { submit(prefetcher, 0, batch); });
  submit(prefetcher, 0, Batch(1, 8));
  wait(prefetcher, 0);
  EXPECT(is_right(world, 0, Batch(1, 8)));
}

void foreign_index(int rounds) {
  World world(5, 2);
  Prefetcher prefetcher(world.settings);
  for (int number = 0; number < rounds; ++number) {
    Batch batch(number, 8);
    batch.index[2] = World::kImages, batch.index[5] = -1, batch.index[7] = int64_t{1} << 40;
    submit(prefetcher, 0, batch), submit(prefetcher, 1, Batch(number, 8));
    try {
      wait(prefetcher, 0);
      EXPECT(!"an error");
    } catch (const dsareid::SampleError& error) {
      EXPECT(error.position == 2 && error.index == World::kImages);
      EXPECT(std::string(error.what()) == "index 12 is outside of the store, 0..11");
    }
    wait(prefetcher, 1);
    EXPECT(is_right(world, 1, Batch(number, 8)));
    submit(prefetcher, 0, Batch(number, 8));  // it goes on
    wait(prefetcher, 0);
    EXPECT(is_right(world, 0, Batch(number, 8)));
  }
}

using File = std::unique_ptr<FILE, int (*)(FILE*)>;

dsareid::StoredFile stored_file(int descriptor) {
  struct stat found;
  EXPECT(fstat(descriptor, &found) == 0);
  return {descriptor, found.st_size, found.st_mtim.tv_sec * int64_t{1'000'000'000} + found.st_mtim.tv_nsec};
}

void changed_file(int) {
  World world(2, 1);
  File first(std::tmpfile(), std::fclose), second(std::tmpfile(), std::fclose);
  EXPECT(first && second);
  const int file = fileno(second.get());
  EXPECT(ftruncate(file, 1000) == 0);
  const timespec then[2] = {{1000, 5}, {1000, 5}}, later[2] = {{1000, 6}, {1000, 6}};
  EXPECT(futimens(file, then) == 0);
  world.settings.files = {stored_file(fileno(first.get())), stored_file(file)};
  Prefetcher prefetcher(world.settings);
  const auto round = [&] {
    submit(prefetcher, 0, Batch(0, 8));
    wait(prefetcher, 0);
  };
  const std::string changed = "the store changed while it was being read: ";
  round();
  EXPECT(ftruncate(file, 999) == 0);
  expect_error<dsareid::SampleError>(changed + "a file of 1000 bytes has 999", round);
  EXPECT(ftruncate(file, 1000) == 0 && futimens(file, later) == 0);
  expect_error<dsareid::SampleError>(changed + "a file was written to", round);
  EXPECT(futimens(file, then) == 0);
  round();
  EXPECT(is_right(world, 0, Batch(0, 8)));
  second.reset();
  expect_error<dsareid::SampleError>("the store cannot be read any more: Bad file descriptor", round);
}

void closing_drops_what_has_not_begun(int rounds) {
  Shape large;
  large.batch = 64;
  for (int number = 0; number < rounds; ++number) {
    World world(3, 4, large);
    Prefetcher prefetcher(world.settings);
    for (int slot = 0; slot < 4; ++slot) submit(prefetcher, slot, Batch(number, 64));
    std::thread waiting([&] {
      expect_error<std::runtime_error>("closed", [&] {
        for (const int slot : {3, 2, 1, 0}) wait(prefetcher, slot);
        throw std::runtime_error("closed");  // all was done before
      });
    });
    std::thread other([&] { prefetcher.close(); });
    if (number % 2) std::this_thread::sleep_for(1ms);
    prefetcher.close();
    const auto before = world.image;  // also a race that ThreadSanitizer sees, were a thread left
    other.join(), waiting.join();
    EXPECT(world.image == before);
    expect_error<std::runtime_error>("closed", [&] { wait(prefetcher, 0); });
    expect_error<std::runtime_error>("closed", [&] { submit(prefetcher, 0, Batch(0, 64)); });
    prefetcher.close();
  }
}

void destruction_during_work(int rounds) {
  for (int number = 0; number < rounds; ++number) {
    World world(1 + number % 4, 3);
    auto prefetcher = std::make_unique<Prefetcher>(world.settings);
    for (int slot = 0; slot < number % 4; ++slot) submit(*prefetcher, slot, Batch(number, 8));
    if (number % 4 == 3) wait(*prefetcher, 1);
    prefetcher.reset();
    for (int slot = 0; slot < 3; ++slot) world.poison(slot);  // the caller's again
  }
}

[[noreturn]] void be_a_child(std::unique_ptr<Prefetcher> prefetcher) {
  alarm(10);  // where it hangs, it is killed
  const Batch batch(0, 8);
  for (int slot = 0; slot < 2; ++slot) {
    expect_error<std::runtime_error>("belongs to another process", [&] { submit(*prefetcher, slot, batch); });
    expect_error<std::runtime_error>("belongs to another process", [&] { wait(*prefetcher, slot); });
  }
  prefetcher->close();
  prefetcher.reset();
  _exit(0);
}

void forked_children(int rounds) {
  for (int number = 0; number < rounds; ++number) {
    World world(2, 2);
    auto prefetcher = std::make_unique<Prefetcher>(world.settings);
    submit(*prefetcher, 0, Batch(number, 8)), submit(*prefetcher, 1, Batch(number + 1, 8));
    const pid_t child = fork();
    EXPECT(child >= 0);
    if (child == 0) be_a_child(std::move(prefetcher));
    for (int slot = 0; slot < 2; ++slot) {
      wait(*prefetcher, slot);
      EXPECT(is_right(world, slot, Batch(number + slot, 8)));
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
}

long resident_bytes() {
  long pages = 0;
  File file(std::fopen("/proc/self/statm", "r"), std::fclose);
  EXPECT(file && std::fscanf(file.get(), "%*d %ld", &pages) == 1);
  return pages * sysconf(_SC_PAGESIZE);
}

void soak(int rounds) {
  constexpr int kThreads = 2, kWarm = 500;
  Shape tiny;
  tiny.height = 16, tiny.width = 8;
  World world(kThreads, 2, tiny);
  Prefetcher prefetcher(world.settings);
  const Batch batch(0, 8);
  [[maybe_unused]] long bytes = 0;
  long allocated = 0;
  std::chrono::steady_clock::time_point began;
  for (int number = 0; number < rounds; ++number) {
    submit(prefetcher, number % 2, batch);
    wait(prefetcher, number % 2);
    if (number == kWarm) {
      bytes = resident_bytes(), allocated = allocations;
      began = std::chrono::steady_clock::now();
    }
  }
  const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - began;
  std::printf("%.1f us a batch\n", took.count() / (rounds - kWarm));
  EXPECT(allocations - allocated <= 8 * kThreads);                   // a thread's first sample may come late
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)  // which keep books
  EXPECT(resident_bytes() - bytes < 1 << 20);
#endif
}

void two_at_once(int rounds) {
  const auto run = [&](int first) {
    World world(2, 2);
    Prefetcher prefetcher(world.settings);
    for (int number = first; number < first + rounds; ++number) {
      submit(prefetcher, 1, Batch(number, 8)), submit(prefetcher, 0, Batch(number + 1, 8));
      wait(prefetcher, 0), wait(prefetcher, 1);
      EXPECT(is_right(world, 1, Batch(number, 8)) && is_right(world, 0, Batch(number + 1, 8)));
    }
  };
  std::thread other(run, 1000);
  run(0);
  other.join();
}

void check_epoch(const std::vector<int64_t>& label, int64_t identities, int64_t images, uint32_t number) {
  const int64_t count = static_cast<int64_t>(label.size());
  const int64_t identity_count = label.empty() ? 0 : *std::max_element(label.begin(), label.end()) + 1;
  const dsareid::Epoch epoch =
      dsareid::sample_epoch({label.data(), count, identity_count, identities, images, 5, number});
  std::vector<int64_t> drawn(count);
  EXPECT(epoch.index.size() % (identities * images) == 0 && epoch.index.size() == epoch.repeat.size());
  for (size_t at = 0; at < epoch.index.size();) {
    std::set<int64_t> in_batch;
    for (int64_t p = 0; p < identities; ++p) {
      EXPECT(in_batch.insert(label[epoch.index[at]]).second);
      for (int64_t k = 0; k < images; ++k, ++at) {
        EXPECT(label[epoch.index[at]] == label[epoch.index[at - k]]);
        EXPECT(epoch.repeat[at] == drawn[epoch.index[at]]++);
      }
    }
  }
  for (const int64_t times : drawn) EXPECT(times >= 1);
}

void epochs(int rounds) {
  for (int number = 0; number < rounds; ++number) {
    const auto [word] = dsa::philox(3, number, 0, 0, 0);
    const int64_t identity_count = 1 + word[0] % 9;
    std::vector<int64_t> label;
    for (int64_t i = 0; i < identity_count; ++i) {
      label.insert(label.end(), 1 + dsa::philox(3, number, i, 1, 0).word[0] % (i == 0 ? 60 : 9), i);
    }
    check_epoch(label, 1 + word[1] % identity_count, 1 + word[2] % 6, number);
  }
  const int64_t label[] = {0, 1, 1, 3};
  const auto sample = [&](int64_t count, int64_t identity_count, int64_t identities, int64_t images) {
    dsareid::sample_epoch({label, count, identity_count, identities, images, 0, 0});
  };
  expect_error<std::invalid_argument>("1..2^32 - 1 images, not 0", [&] { sample(0, 2, 1, 1); });
  expect_error<std::invalid_argument>("identities must be 1..2, not 3", [&] { sample(3, 2, 3, 1); });
  expect_error<std::invalid_argument>("images must be 1..2^32 - 1, not 0", [&] { sample(3, 2, 1, 0); });
  expect_error<std::invalid_argument>("0..1, found 3", [&] { sample(4, 2, 1, 1); });
  expect_error<std::invalid_argument>("identity 2 has no image", [&] { sample(4, 4, 1, 1); });
}

struct Case {
  void (*run)(int rounds);
  int rounds;
};
const std::map<std::string, Case> kCases = {
    {"results_equal_direct_calls", {results_equal_direct_calls, 20}},
    {"slots_in_any_order", {slots_in_any_order, 50}},
    {"oldest_slot_first", {oldest_slot_first, 50}},
    {"waiting_has_a_limit", {waiting_has_a_limit, 1}},
    {"misuse_is_an_error", {misuse_is_an_error, 1}},
    {"foreign_index", {foreign_index, 50}},
    {"changed_file", {changed_file, 1}},
    {"closing_drops_what_has_not_begun", {closing_drops_what_has_not_begun, 20}},
    {"destruction_during_work", {destruction_during_work, 100}},
    {"forked_children", {forked_children, 10}},
    {"soak", {soak, 5000}},
    {"two_at_once", {two_at_once, 100}},
    {"epochs", {epochs, 300}},
};

}  // namespace

int main(int count, char** words) {
  if (count < 2) {
    for (const auto& [name, _] : kCases) std::puts(name.c_str());
    return 0;
  }
  const Case& chosen = kCases.at(words[1]);
  chosen.run(count > 2 ? std::atoi(words[2]) : chosen.rounds);
  return 0;
}
