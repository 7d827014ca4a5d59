// Bugs that planted.cu can be asked for, and its patterns of traffic.
#pragma once

enum class Bug {
  none,
  wrong,
  global_read,
  shared_write,
  not_initialised,
  early_return,
  divergent_barrier,
  overlap,
  no_warp_barrier,
  too_much_shared,
};
enum class Traffic { wide, strided, loop, conflicts, one_address };

int run_turn_round(const int* in, int* out, int* evens, int count, Bug bug);
int run_traffic(const int* in, int* out, Traffic kind);
