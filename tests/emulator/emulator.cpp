#include <cuda_runtime.h>
// (emulator.h redefines words of CUDA's headers: it comes after them)
#include "emulator.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
constexpr bool sanitized = true;
#else
constexpr bool sanitized = false;
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace vts::emulator {

dim3 thread_index, block_index, block_size, grid_size;
int64_t most_blocks = 0x7FFFFFFF;
int device = 0, asked = 0;

namespace {

constexpr size_t stack_bytes = sanitized ? 512 * 1024 : 128 * 1024;
constexpr size_t most_shared = 99 * 1024;  // for a block, on the least of the architectures (12.0)

// --- Switching stacks -----------------------------------------------------------------------------------------------

void fiber_main();

#ifdef __x86_64__
// Saves what a call must keep on the old stack and takes it back from the new one. (swapcontext asks the kernel for the
// signal mask each time, and is some 50 times slower.)
extern "C" void vts_emulator_switch(void **from, void *to);
asm(R"(
    .text
    .globl vts_emulator_switch
    .hidden vts_emulator_switch
    .type vts_emulator_switch, @function
vts_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size vts_emulator_switch, .-vts_emulator_switch
)");

struct context {
    void *top = nullptr;
    void prepare(char *stack) {
        void **slot = reinterpret_cast<void **>(stack + stack_bytes);
        *--slot = nullptr;  // the caller that fiber_main has not: as after a call, the stack is 8 bytes off 16
        *--slot = reinterpret_cast<void *>(&fiber_main);
        for (int i = 0; i < 6; ++i) *--slot = nullptr;
        top = slot;
    }
};
void switch_context(context &from, context &to) { vts_emulator_switch(&from.top, to.top); }
#else
struct context {
    ucontext_t state;
    void prepare(char *stack) {
        getcontext(&state);
        state.uc_stack.ss_sp = stack, state.uc_stack.ss_size = stack_bytes, state.uc_link = nullptr;
        makecontext(&state, &fiber_main, 0);
    }
};
void switch_context(context &from, context &to) { swapcontext(&from.state, &to.state); }
#endif

// --- Threads --------------------------------------------------------------------------------------------------------

enum class state { ready, waiting, done };

struct copy {
    void *to;
    uint4 what;
};

struct fiber {
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    context own;
    dim3 index;
    state now;
    bool of_block;  // what it waits for
    meeting at;
    uint32_t mask;
    void *argument;
    std::vector<std::vector<copy>> groups{1};  // cp.async: the last is not yet committed
};

std::vector<fiber> fibers;  // kept from run to run, for their stacks
size_t threads;
fiber *current;
context scheduler;
const std::function<void()> *kernel;
std::string error;
cudaError_t last_error = cudaSuccess;
bool failed, reversed;
unsigned char *shared;

#ifdef __SANITIZE_ADDRESS__
const void *scheduler_stack;
size_t scheduler_stack_bytes;
void *scheduler_fake;
#endif

void resume(fiber &next) {
    current = &next;
    thread_index = next.index;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(&scheduler_fake, next.stack.get(), stack_bytes);
#endif
    switch_context(scheduler, next.own);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
}

void yield() {
    fiber &own = *current;
#ifdef __SANITIZE_ADDRESS__
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(own.now == state::done ? nullptr : &fake, scheduler_stack, scheduler_stack_bytes);
#endif
    switch_context(own.own, scheduler);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
    (*kernel)();
    current->now = state::done;
    yield();
    __builtin_unreachable();
}

std::string name(const fiber &f) {
    return "thread (" + std::to_string(f.index.x) + ", " + std::to_string(f.index.y) + ", " +
           std::to_string(f.index.z) + ")";
}

std::string name(const meeting &at) {
    return std::string(at.what) + (*at.file != 0 ? " at " + std::string(at.file) + ":" + std::to_string(at.line) : "");
}

void fail(const std::string &what) {
    if (!failed)
        error = what + ", in block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
                std::to_string(block_index.z) + ")";
    failed = true;
}

// From here on the run is over: its fibers are never resumed.
[[noreturn]] void abandon() {
    current->now = state::done;
    yield();
    __builtin_unreachable();
}

bool same(const meeting &a, const meeting &b) {
    return a.line == b.line && (a.what == b.what || std::strcmp(a.what, b.what) == 0) &&
           (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

// Marks the current thread as waiting, and gives whether all of [first, first + count) that mask names are there.
bool arrive(const meeting &at, bool of_block, uint32_t mask, void *argument, size_t first, size_t count) {
    fiber &own = *current;
    own.now = state::waiting, own.of_block = of_block, own.at = at, own.mask = mask, own.argument = argument;
    // Those who run later come first, so that all but the last to arrive need one look.
    for (size_t n = 0; n < count; ++n) {
        const size_t t = first + (reversed ? n : count - 1 - n);
        if (!of_block && !(mask >> (t - first) & 1)) continue;
        const fiber *other = t < threads ? &fibers[t] : nullptr;
        if (other == nullptr || other->now == state::done) {
            fail(
                name(own) + " waits in " + name(at) + " for " +
                (other ? name(*other) + ", which has ended"
                       : "lane " + std::to_string(t - first) + ", which does not exist"));
            abandon();
        }
        if (other->now != state::waiting || other->of_block != of_block) return false;
        if (!of_block && !(other->mask >> lane() & 1)) return false;  // it is meeting others first
        if (!same(other->at, at) || other->mask != mask) {
            fail(
                name(own) + " is in " + name(at) + " while " + name(*other) + " waits for it in " + name(other->at) +
                (other->mask != mask ? " with another mask" : ""));
            abandon();
        }
    }
    return true;
}

void meet(const meeting &at, bool of_block, uint32_t mask, void *argument, action act, size_t first, size_t count) {
    if (!arrive(at, of_block, mask, argument, first, count)) {
        yield();
        return;
    }
    static void *arguments[1024];
    for (size_t t = 0; t < count; ++t) {
        const bool named = of_block || (mask >> t & 1);
        arguments[t] = named ? fibers[first + t].argument : nullptr;
        if (named) fibers[first + t].now = state::ready;
    }
    if (act != nullptr) act(arguments, mask);
}

void run_block() {
    for (size_t t = 0; t < threads; ++t) {
        fiber &f = fibers[t];
        f.index = dim3(t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y);
        f.now = state::ready;
        f.groups.resize(1), f.groups[0].clear();
#ifdef __SANITIZE_ADDRESS__
        ASAN_UNPOISON_MEMORY_REGION(f.stack.get(), stack_bytes);  // a fiber abandoned half-way leaves its marks
#endif
        f.own.prepare(f.stack.get());
    }
    // A warp runs for as long as it can, then the next.
    const size_t warps = (threads + 31) / 32;
    bool progress = true;
    while (progress && !failed) {
        progress = false;
        for (size_t w = 0; w < warps; ++w) {
            const size_t first = (reversed ? warps - 1 - w : w) * 32, count = std::min<size_t>(32, threads - first);
            for (bool moved = true; moved;) {
                moved = false;
                for (size_t l = 0; l < count; ++l) {
                    fiber &f = fibers[first + (reversed ? count - 1 - l : l)];
                    if (f.now != state::ready) continue;
                    resume(f);
                    if (failed) return;
                    moved = progress = true;
                }
            }
        }
    }
    for (size_t t = 0; t < threads && !failed; ++t)
        if (fibers[t].now == state::waiting)
            fail(name(fibers[t]) + " waits in " + name(fibers[t].at) + " for threads that never come");
}

}  // namespace

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()> &body) {
    const uint64_t in_block = uint64_t(1) * block.x * block.y * block.z;
    if (in_block == 0 || in_block > 1024 || shared_bytes > most_shared || grid.x > 0x7FFFFFFFu || grid.y > 65535 ||
        grid.z > 65535) {
        last_error = cudaErrorInvalidConfiguration;
        return;
    }
    threads = static_cast<size_t>(in_block);
    if (fibers.size() < threads) fibers.resize(threads);
    // Of the exact size, so that AddressSanitizer sees its end.
    const std::unique_ptr<unsigned char[]> room(new unsigned char[shared_bytes]);
    shared = room.get(), kernel = &body, failed = false, grid_size = grid, block_size = block;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x && !failed; ++x) {
                block_index = dim3(x, y, z);
                std::memset(shared, 0xFF, shared_bytes);  // NaN
                run_block();
            }
    if (failed) last_error = cudaErrorLaunchFailure;
}

void *dynamic_shared() { return shared; }

int lane() { return static_cast<int>((current - fibers.data()) % 32); }

void fail(const char *what) {
    fail(std::string(what) + ", in " + name(*current));
    abandon();
}

void meet_block(const meeting &at, void *argument, action act) { meet(at, true, 0, argument, act, 0, threads); }

void meet_warp(const meeting &at, uint32_t mask, void *argument, action act) {
    const size_t own = static_cast<size_t>(current - fibers.data());
    if (!(mask >> (own % 32) & 1)) fail("a lane meets others with a mask that does not name it");
    meet(at, false, mask, argument, act, own / 32 * 32, 32);
}

void cp_async(void *to, const void *from, bool predicate) {
    if ((reinterpret_cast<uintptr_t>(to) | (predicate ? reinterpret_cast<uintptr_t>(from) : 0)) % 16 != 0)
        fail("cp_async_16 at an address that is no multiple of 16");
    copy c{to, {0, 0, 0, 0}};
    if (predicate) std::memcpy(&c.what, from, 16);
    std::memset(to, 0xFF, 16);
    current->groups.back().push_back(c);
}

void cp_async_commit() { current->groups.emplace_back(); }

void cp_async_wait(int groups) {
    auto &under_way = current->groups;
    while (static_cast<int>(under_way.size()) - 1 > groups) {
        for (const copy &c : under_way.front()) std::memcpy(c.to, &c.what, 16);
        under_way.erase(under_way.begin());
    }
}

}  // namespace vts::emulator

// --- The little of the CUDA runtime that launchers call -------------------------------------------------------------

extern "C" {

unsigned vts_emulator_blocks() { return vts::emulator::grid_size.x; }
void vts_emulator_reverse(int reverse) { vts::emulator::reversed = reverse != 0; }
void vts_emulator_leave_error() { vts::emulator::last_error = cudaErrorInvalidValue; }
void vts_emulator_most_blocks(int64_t most) { vts::emulator::most_blocks = most; }
void vts_emulator_device(int device) { vts::emulator::device = device; }
int vts_emulator_asked() { return vts::emulator::asked; }

const char *cudaGetErrorName(cudaError_t error) {
    return error == cudaErrorLaunchFailure          ? "cudaErrorLaunchFailure"
           : error == cudaErrorInvalidConfiguration ? "cudaErrorInvalidConfiguration"
           : error == cudaErrorInvalidValue         ? "cudaErrorInvalidValue"
                                                    : "another error";
}
const char *cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorLaunchFailure ? vts::emulator::error.c_str() : "refused";
}
cudaError_t cudaGetLastError(void) { return std::exchange(vts::emulator::last_error, cudaSuccess); }
cudaError_t cudaGetDevice(int *device) { return *device = vts::emulator::device, cudaSuccess; }
cudaError_t cudaFuncSetAttribute(const void *, cudaFuncAttribute, int) {
    ++vts::emulator::asked;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount: *value = 4; break;
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = vts::emulator::most_shared; break;
        default: return cudaErrorInvalidValue;
    }
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t) {
    return std::memset(to, value, bytes), cudaSuccess;
}

}  // extern "C"
