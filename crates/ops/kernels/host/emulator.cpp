// Runs the kernels' blocks on the host: a fiber for each thread of a block, in several orders.
#define MOCO_HOST
#include <ucontext.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../moco.cu"

namespace moco_host {
Index3 thread_index, block_index, block_dim, grid_dim;
unsigned char* dynamic_shared = nullptr;

namespace {
constexpr size_t STACK = 64 << 10;
constexpr unsigned LANES = 32;

enum class State { Ready, AtBarrier, AtExchange, Done };

struct Fiber {
    ucontext_t context;
    std::vector<unsigned char> stack = std::vector<unsigned char>(STACK);
    State state = State::Done;
    uint64_t given = 0;
    unsigned wanted = 0;
};

std::vector<Fiber> fibers;
ucontext_t scheduler;
unsigned current = 0;
void (*entry)(void**) = nullptr;
void** arguments = nullptr;
bool faulty = false;

void body() {
    entry(arguments);
    fibers[current].state = State::Done;
}

void leave(State state) {
    const unsigned self = current;
    fibers[self].state = state;
    swapcontext(&fibers[self].context, &scheduler);
}

void enter(unsigned thread) {
    current = thread;
    thread_index = {thread, 0, 0};
    fibers[thread].state = State::Ready;
    swapcontext(&scheduler, &fibers[thread].context);
}

// Runs all ready fibers until each waits or is done; then opens what all its members wait at.
void run_block(unsigned threads, bool backwards) {
    for (unsigned t = 0; t < threads; t++) {
        Fiber& fiber = fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = &scheduler;
        makecontext(&fiber.context, body, 0);
        fiber.state = State::Ready;
    }
    std::vector<unsigned> ready(threads);
    std::iota(ready.begin(), ready.end(), 0u);
    while (!ready.empty()) {
        if (backwards) std::reverse(ready.begin(), ready.end());
        for (unsigned t : ready) enter(t);
        ready.clear();
        for (unsigned first = 0; first < threads; first += LANES) {
            const unsigned end = first + LANES < threads ? first + LANES : threads;
            unsigned waiting = 0, alive = 0;
            for (unsigned t = first; t < end; t++) {
                waiting += fibers[t].state == State::AtExchange;
                alive += fibers[t].state != State::Done;
            }
            if (waiting == 0) continue;
            if (waiting != alive || alive != end - first) {
                // Some lanes of the warp are elsewhere: undefined on a device.
                faulty = true;
                return;
            }
            std::vector<uint64_t> given(LANES, 0);
            for (unsigned t = first; t < end; t++) given[t - first] = fibers[t].given;
            for (unsigned t = first; t < end; t++) {
                if (fibers[t].wanted >= end - first) faulty = true;
                fibers[t].given = given[fibers[t].wanted % LANES];
                ready.push_back(t);
            }
        }
        if (!ready.empty()) continue;
        unsigned waiting = 0, done = 0;
        for (unsigned t = 0; t < threads; t++) {
            waiting += fibers[t].state == State::AtBarrier;
            done += fibers[t].state == State::Done;
        }
        if (done == threads) return;
        if (waiting != threads) {
            // A barrier that not all threads of the block reach: undefined on a device.
            faulty = true;
            return;
        }
        ready.resize(threads);
        std::iota(ready.begin(), ready.end(), 0u);
    }
}
}  // namespace

void barrier() { leave(State::AtBarrier); }

uint64_t exchange(uint64_t bits, unsigned from) {
    const unsigned self = current;
    fibers[self].given = bits;
    fibers[self].wanted = from;
    leave(State::AtExchange);
    return fibers[self].given;
}

namespace {
// A letter for each kind of parameter, so that a launch with other widths is found.
template <class A>
constexpr char letter() {
    if constexpr (std::is_pointer_v<A>) {
        return std::is_const_v<std::remove_pointer_t<A>> ? 'r' : 'w';
    } else if constexpr (std::is_same_v<A, float>) {
        return 'f';
    } else if constexpr (sizeof(A) == 8) {
        return 'l';
    } else {
        return 'i';
    }
}

template <class... A>
std::string signature(void (*)(A...)) {
    return {letter<A>()...};
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_const_t<A>*>(args[I])...);
}
template <class... A>
void call(void (*kernel)(A...), void** args) {
    call(kernel, args, std::index_sequence_for<A...>{});
}

struct Entry {
    const char* name;
    std::string signature;
    void (*run)(void**);
};

#define ENTRY(name) {#name, signature(&name), +[](void** args) { call(&name, args); }},
#define TYPED_ENTRY(name) ENTRY(name##_f32) ENTRY(name##_bf16)
const std::vector<Entry> entries = {
#include "../entries.inc"
};
}  // namespace
}  // namespace moco_host

// Runs a kernel over a grid. 0: done; 1: no such kernel; 2: other parameters; 3: lanes or threads that
// wait for others that never come.
extern "C" int moco_emulate(const char* name, const char* signature, const unsigned* blocks,
                            unsigned threads, unsigned shared_bytes, int backwards, void** args) {
    using namespace moco_host;
    for (const Entry& candidate : entries) {
        if (std::string(candidate.name) != name) continue;
        if (candidate.signature != signature) return 2;
        entry = candidate.run;
        arguments = args;
        faulty = false;
        if (fibers.size() < threads) fibers.resize(threads);
        // Shared memory starts with what no kernel may rely on.
        std::vector<float> shared(shared_bytes / sizeof(float) + 4, std::nanf(""));
        grid_dim = {blocks[0], blocks[1], 1};
        block_dim = {threads, 1, 1};
        const unsigned n_blocks = blocks[0] * blocks[1];
        for (unsigned i = 0; i < n_blocks && !faulty; i++) {
            const unsigned block = backwards ? n_blocks - 1 - i : i;
            block_index = {block % blocks[0], block / blocks[0], 0};
            for (float& number : shared) number = std::nanf("");
            dynamic_shared = reinterpret_cast<unsigned char*>(shared.data());
            run_block(threads, backwards != 0);
        }
        return faulty ? 3 : 0;
    }
    return 1;
}
