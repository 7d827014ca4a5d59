// What each kernel does to memory on a typical batch, one JSON object a line; report.py prints it.
//
//   counts [IMAGES]    IMAGES = 64 unless said otherwise
#include "counts.h"

int main(int count, char** words) {
  const int images = count > 1 ? std::atoi(words[1]) : 64;
  for (const auto& [name, run] : counts::Suite::all()) run(images);
  return 0;
}
