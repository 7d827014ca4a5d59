// What a launch of merging chooses.
#include "launches.h"

namespace dsa {

inline void choices_of(const MergeArguments& a, launches::Choices& choices) {
  choices.add("relu", a.relu).add("residual", a.residual != nullptr);
}

}  // namespace dsa
