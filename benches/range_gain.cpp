// What a loop over items that the compiler sees (pb_map_options.range, which pb::for_each brings) gains over
// a function called for each: saxpy on float arrays, in turns. range_gain ITEMS ROUNDS WORKERS;
// docs/threading.md has the figures.
#include <parallel_backend.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

struct work {
    float a;
    const float *x, *y;
    float *z;

    void operator()(std::size_t i) const { z[i] = a * x[i] + y[i]; }
};

static std::int32_t one(void *ctx, std::size_t i, const void *, void *) {
    (*static_cast<const work *>(ctx))(i);
    return 0;
}

template <class Call> static double nanoseconds(std::size_t items, const Call &call) {
    const auto begin = std::chrono::steady_clock::now();
    call();
    const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
    return took.count() / static_cast<double>(items);
}

static double median(std::vector<double> &values) {
    std::sort(values.begin(), values.end());
    return values[values.size() / 2];
}

int main(int argc, char **argv) {
    if (argc != 4)
        return std::fputs("range_gain ITEMS ROUNDS WORKERS\n", stderr), 2;
    const auto items = static_cast<std::size_t>(std::atol(argv[1]));
    std::vector<float> x(items, 1), y(items, 2), z(items);
    work saxpy{3, x.data(), y.data(), z.data()};
    std::vector<double> plain, by_function, by_loop;
    const pb::scope scope("threading", {std::atoi(argv[3])});
    for (int round = std::atoi(argv[2]); round > 0; round--) {
        plain.push_back(nanoseconds(items, [&] {
            for (std::size_t i = 0; i < items; i++)
                saxpy(i);
        }));
        by_function.push_back(nanoseconds(
            items, [&] { pb::check(pb_parallel_map(one, &saxpy, items, nullptr, 0, nullptr, 0, nullptr)); }));
        by_loop.push_back(nanoseconds(items, [&] { pb::for_each(items, saxpy); }));
    }
    std::printf("ns an item: plain loop %.3f, a function for each %.3f, pb::for_each %.3f\n", median(plain),
                median(by_function), median(by_loop));
    return z[items / 2] == 5 ? 0 : 1;
}
