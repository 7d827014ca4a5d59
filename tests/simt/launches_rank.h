// What a launch of the ranking chooses.
#include "launches.h"

namespace dsa {

template <class T>
void choices_of(const RankArguments<T>& a, launches::Choices& choices) {
  const bool whole = a.row_stride * sizeof(T) % 16 == 0;  // every row begins as the first does
  choices.add("rows", whole ? launches::alignment(a.distances) : "odd");
}

}  // namespace dsa
