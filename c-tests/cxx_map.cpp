// pb::map and pb::for_each give what a serial loop gives, for every size, backend and kind of result.
#include "check.h"

#include <parallel_backend.hpp>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace {

constexpr const char *backends[] = {"sequential", "threading"};
constexpr std::size_t sizes[] = {0, 1, 2, 1000};

/// No default constructor, no copy, no assignment: results are made in place and moved once.
class label {
  public:
    explicit label(std::size_t index) : text_("item " + std::to_string(index)) {}
    label(label &&) = default;
    label &operator=(label &&) = delete;
    const std::string &text() const { return text_; }

  private:
    std::string text_;
};

struct person {
    std::string name;
    int age;
};

TEST(map_over_indices_equals_a_serial_loop) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        for (const std::size_t n : sizes) {
            std::vector<double> expected;
            for (std::size_t i = 0; i < n; ++i) {
                expected.push_back(0.5 * static_cast<double>(i * i));
            }
            CHECK(pb::map(n, [](std::size_t i) { return 0.5 * static_cast<double>(i * i); }) == expected);
        }
    }
}

TEST(map_over_a_range_equals_a_serial_loop) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        for (const std::size_t n : sizes) {
            std::vector<int> numbers;
            std::vector<std::string> expected;
            for (std::size_t i = 0; i < n; ++i) {
                numbers.push_back(static_cast<int>(i) - 5);
                expected.push_back(std::to_string(numbers.back()));
            }
            CHECK(pb::map(numbers, [](int number) { return std::to_string(number); }) == expected);
        }
    }
}

TEST(for_each_calls_every_index_once) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        for (const std::size_t n : sizes) {
            std::vector<int> calls(n, 0);
            pb::for_each(n, [&calls](std::size_t i) { ++calls[i]; });
            CHECK(calls == std::vector<int>(n, 1));
        }
    }
}

TEST(for_each_may_change_the_elements_of_a_range) {
    std::vector<std::string> words = {"one", "two", "three"};
    pb::for_each(words, [](std::string &word) { word += '!'; });
    CHECK((words == std::vector<std::string>{"one!", "two!", "three!"}));

    int numbers[] = {1, 2, 3};
    pb::for_each(numbers, [](int &number) { number *= 10; });
    CHECK_INT(30, numbers[2]);
}

TEST(constant_ranges_give_constant_elements) {
    const std::array<int, 3> numbers = {1, 2, 3};
    const std::vector<int> twice = pb::map(numbers, [](const int &number) { return 2 * number; });
    CHECK((twice == std::vector<int>{2, 4, 6}));
}

TEST(a_callable_may_be_a_member) {
    const std::vector<person> people = {{"Ada", 36}, {"Grace", 85}};
    CHECK((pb::map(people, &person::age) == std::vector<int>{36, 85}));
}

TEST(results_need_no_default_constructor) {
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const std::vector<label> labels = pb::map(1000, [](std::size_t i) { return label(i); });
        CHECK_INT(1000, labels.size());
        CHECK(labels.front().text() == "item 0");
        CHECK(labels.back().text() == "item 999");
    }
}

TEST(results_may_be_move_only) {
    const auto numbers = pb::map(100, [](std::size_t i) { return std::make_unique<std::size_t>(i); });
    for (std::size_t i = 0; i < numbers.size(); ++i) {
        CHECK_INT(i, *numbers[i]);
    }
}

TEST(bool_results_do_not_disturb_their_neighbours) {
    const pb::scope scope("threading", {4});
    const std::vector<bool> odd = pb::map(1000, [](std::size_t i) { return i % 2 == 1; });
    CHECK_INT(1000, odd.size());
    for (std::size_t i = 0; i < odd.size(); ++i) {
        CHECK(odd[i] == (i % 2 == 1));
    }
}

TEST(a_callable_is_shared_and_never_copied) {
    const auto factor = std::make_unique<int>(3);
    auto times = [&factor, only = std::make_unique<int>(1)](int number) { return *factor * *only * number; };
    const std::vector<int> numbers = {1, 2, 3};
    CHECK((pb::map(numbers, times) == std::vector<int>{3, 6, 9}));
}

TEST(maps_nest) {
    const pb::scope scope("threading", {2});
    const std::vector<int> sums = pb::map(4, [](std::size_t row) {
        int sum = 0;
        for (const int value :
             pb::map(5, [row](std::size_t column) { return static_cast<int>(row * column); })) {
            sum += value;
        }
        return sum;
    });
    CHECK((sums == std::vector<int>{0, 10, 20, 30}));
}

TEST(the_last_report_has_every_item) {
    pb::options options;
    pb::progress_info last{};
    options.progress = [&last](const pb::progress_info &now) {
        last = now;
        return true;
    };
    pb::for_each(
        1000, [](std::size_t) {}, options);
    CHECK_INT(1000, last.done);
    CHECK_INT(1000, last.total);
    CHECK_INT(0, last.failed);
    CHECK(last.elapsed.count() >= 0.0);
}

} // namespace

int main() {
    RUN(map_over_indices_equals_a_serial_loop);
    RUN(map_over_a_range_equals_a_serial_loop);
    RUN(for_each_calls_every_index_once);
    RUN(for_each_may_change_the_elements_of_a_range);
    RUN(constant_ranges_give_constant_elements);
    RUN(a_callable_may_be_a_member);
    RUN(results_need_no_default_constructor);
    RUN(results_may_be_move_only);
    RUN(bool_results_do_not_disturb_their_neighbours);
    RUN(a_callable_is_shared_and_never_copied);
    RUN(maps_nest);
    RUN(the_last_report_has_every_item);
    return check_result();
}
