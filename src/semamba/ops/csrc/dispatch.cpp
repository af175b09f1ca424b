// Picks an instruction set and shares the sequences among threads; the C functions that Python calls.
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

#include "kernels.h"

#if defined(_WIN32)
#define SEMAMBA_API extern "C" __declspec(dllexport)
#else
#include <dlfcn.h>
#define SEMAMBA_API extern "C" __attribute__((visibility("default")))
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#define SEMAMBA_HAS_MXCSR 1
#endif

namespace isa_portable { extern const Kernels kernels; }
#ifdef SEMAMBA_HAVE_AVX2
namespace isa_avx2 { extern const Kernels kernels; }
#endif
#ifdef SEMAMBA_HAVE_AVX512
namespace isa_avx512 { extern const Kernels kernels; }
#endif

namespace {

// Best first; `supported` asks the processor.
std::vector<const Kernels*> available() {
    std::vector<const Kernels*> list;
#ifdef SEMAMBA_HAVE_AVX512
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        list.push_back(&isa_avx512::kernels);
#endif
#ifdef SEMAMBA_HAVE_AVX2
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list.push_back(&isa_avx2::kernels);
#endif
    list.push_back(&isa_portable::kernels);
    return list;
}

const Kernels* chosen = available().front();

// A decaying state runs into denormal numbers, which are a hundred times slower: flush them to zero while a kernel runs.
class FlushDenormals {
#ifdef SEMAMBA_HAS_MXCSR
    unsigned saved = _mm_getcsr();
public:
    FlushDenormals() { _mm_setcsr(saved | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(saved); }
#endif
};

struct Job {
    void (*run)(void* context, int64_t part);
    void* context;
    int64_t part;
};

#if !defined(_WIN32)
// PyTorch's own OpenMP runtime, when it is the GNU one: sharing its threads costs nothing, a second pool would fight them.
using ParallelFunction = void (*)(void (*)(void*), void*, unsigned, unsigned);
using ThreadNumber = int (*)();
const auto gomp_parallel = reinterpret_cast<ParallelFunction>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
const auto thread_number = reinterpret_cast<ThreadNumber>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
const auto team_size = reinterpret_cast<ThreadNumber>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));

void gomp_entry(void* context) {
    auto* job = static_cast<Job*>(context);
    // A team may be smaller than asked for: its threads share the parts.
    for (int64_t part = thread_number(); part < job->part; part += team_size()) job->run(job->context, part);
}
#endif

void parallel(int64_t parts, void (*run)(void*, int64_t), void* context) {
    if (parts <= 1) return run(context, 0);
#if !defined(_WIN32)
    if (gomp_parallel && thread_number && team_size) {
        Job job{run, context, parts};
        return gomp_parallel(gomp_entry, &job, static_cast<unsigned>(parts), 0);
    }
#endif
    std::vector<std::thread> threads;
    for (int64_t part = 1; part < parts; ++part) threads.emplace_back(run, context, part);
    run(context, 0);
    for (auto& thread : threads) thread.join();
}

template <class Args>
struct Call {
    const Args* args;
    int64_t sequences, parts;
    void (*forward)(const Args&, int64_t, int64_t);
    void (*backward)(const Args&, int64_t, int64_t, float*);
    float* sums;
    int64_t sums_size;
    int64_t edge(int64_t part) const { return sequences * part / parts; }
};

template <class Args>
void run_part(void* context, int64_t part) {
    const auto* call = static_cast<Call<Args>*>(context);
    const FlushDenormals guard;
    if (call->forward) call->forward(*call->args, call->edge(part), call->edge(part + 1));
    else call->backward(*call->args, call->edge(part), call->edge(part + 1), call->sums + part * call->sums_size);
}

int64_t parts_of(int64_t sequences, int64_t threads) { return threads < 1 || sequences < 2 ? 1 : sequences < threads ? sequences : threads; }

template <class Args>
void forward(const Args& args, int64_t sequences, void (*kernel)(const Args&, int64_t, int64_t)) {
    Call<Args> call{&args, sequences, parts_of(sequences, args.threads), kernel, nullptr, nullptr, 0};
    parallel(call.parts, run_part<Args>, &call);
}

template <class Args>
void backward(const Args& args, int64_t sequences, int64_t size, void (*kernel)(const Args&, int64_t, int64_t, float*),
              void (*finish)(const Args&, const float*)) {
    const int64_t parts = parts_of(sequences, args.threads), row = (size + 63) / 64 * 64;  // no two threads in one cache line
    std::vector<float> sums(parts * row, 0.f);
    Call<Args> call{&args, sequences, parts, nullptr, kernel, sums.data(), row};
    parallel(parts, run_part<Args>, &call);
    for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = 0; i < size; ++i) sums[i] += sums[part * row + i];
    finish(args, sums.data());
}

}  // namespace

SEMAMBA_API int64_t semamba_version() { return kVersion; }
SEMAMBA_API const char* semamba_kernel() { return chosen->name; }
SEMAMBA_API int64_t semamba_lanes() { return chosen->lanes; }
SEMAMBA_API int64_t semamba_chunk() { return kChunk; }

// Use the named instruction set from now on; 0 when this processor or this build lacks it.
SEMAMBA_API int64_t semamba_use(const char* name) {
    for (const Kernels* kernels : available())
        if (!std::strcmp(kernels->name, name)) {
            chosen = kernels;
            return 1;
        }
    return 0;
}

SEMAMBA_API void semamba_scan_forward(const ScanArgs* a) { forward(*a, a->batch, chosen->scan_forward); }
SEMAMBA_API void semamba_scan_backward(const ScanArgs* a) {
    backward(*a, a->batch, chosen->scan_sums(*a), chosen->scan_backward, chosen->scan_finish);
}
SEMAMBA_API void semamba_block_forward(const BlockArgs* a) { forward(*a, a->outer * a->inner, chosen->block_forward); }
SEMAMBA_API void semamba_block_backward(const BlockArgs* a) {
    backward(*a, a->outer * a->inner, chosen->block_sums(*a), chosen->block_backward, chosen->block_finish);
}
SEMAMBA_API void semamba_conv_forward(const FrequencyArgs* a) { forward(*a, a->rows, chosen->conv_forward); }
SEMAMBA_API void semamba_conv_backward(const FrequencyArgs* a) {
    backward(*a, a->rows, chosen->conv_sums(*a), chosen->conv_backward, chosen->conv_finish);
}
SEMAMBA_API void semamba_attention_forward(const FrequencyArgs* a) { forward(*a, a->rows, chosen->attention_forward); }
SEMAMBA_API void semamba_attention_backward(const FrequencyArgs* a) {
    backward(*a, a->rows, chosen->attention_sums(*a), chosen->attention_backward, chosen->attention_finish);
}

namespace {
int64_t norm_blocks(const NormArgs& a) { return a.batch * a.T * ((a.F + a.block - 1) / a.block); }
void norm_finish(const NormArgs& a) {
    chosen->norm_combine(a);
    forward(a, norm_blocks(a), chosen->norm_apply);
}
}  // namespace

SEMAMBA_API void semamba_norm_forward(const NormArgs* a) {
    forward(*a, norm_blocks(*a), chosen->norm_statistics);
    norm_finish(*a);
}
SEMAMBA_API void semamba_norm_backward(const NormArgs* a) {
    forward(*a, norm_blocks(*a), chosen->norm_gradient_sums);
    chosen->norm_gradient_combine(*a);
    forward(*a, norm_blocks(*a), chosen->norm_gradient_apply);
}
SEMAMBA_API int64_t semamba_dense_bins() { return kDenseBins; }
SEMAMBA_API int64_t semamba_dense_scratch(const DenseArgs* a) { return chosen->dense_weights_size(*a); }

// The convolution, then `norm` of its result in place.
SEMAMBA_API void semamba_dense_forward(const DenseArgs* a, const NormArgs* norm) {
    const int64_t stretch = kDenseRows * a->dilation, blocks = (a->F + kDenseBins - 1) / kDenseBins;
    forward(*a, a->O, chosen->dense_weights);
    forward(*a, a->batch * ((a->T + stretch - 1) / stretch) * a->dilation * blocks, chosen->dense_forward);
    norm_finish(*norm);
}
SEMAMBA_API void semamba_line_forward(const LineArgs* a, const NormArgs* norm) {
    forward(*a, a->lines, chosen->line_forward);
    norm_finish(*norm);
}
