// The widest instruction set that this machine has and that was built.
#pragma once

namespace vts {

enum class level { portable, avx2, avx512 };

level cpu_level();

}  // namespace vts
