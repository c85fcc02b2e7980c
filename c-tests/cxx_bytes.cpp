// pb::map_bytes: strings and vectors go in and come out, on every backend, and exceptions come back.
#include "check.h"

#include <parallel_backend.hpp>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace {

constexpr const char *backends[] = {"sequential", "threading", "multiprocessing"};

std::string reversed(std::string_view text) { return {text.rbegin(), text.rend()}; }

TEST(strings_become_strings) {
    std::vector<std::string> words;
    for (std::size_t i = 0; i < 300; ++i) {
        words.push_back(std::string(i % 50, 'x') + std::to_string(i));
    }
    words.emplace_back();
    for (const char *backend : backends) {
        const pb::scope scope(backend, {3});
        const pb::bytes_results results = pb::map_bytes(words, reversed);
        CHECK_INT(words.size(), results.size());
        for (std::size_t i = 0; i < words.size(); ++i) {
            CHECK(results[i] == reversed(words[i]));
        }
    }
}

TEST(vectors_of_numbers_are_bytes_too_and_a_callable_may_have_state) {
    const std::vector<std::vector<std::int64_t>> rows = {{1, 2, 3}, {}, {40, 2}};
    std::int64_t offset = 100;
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        const auto results = pb::map_bytes(rows, [&offset](std::string_view bytes) {
            std::vector<std::int64_t> sums(2, offset);
            std::vector<std::int64_t> row(bytes.size() / sizeof(std::int64_t));
            std::copy_n(bytes.data(), bytes.size(), reinterpret_cast<char *>(row.data()));
            for (const std::int64_t value : row) {
                sums[0] += value;
            }
            return sums;
        });
        const std::int64_t expected[] = {106, 100, 142};
        for (std::size_t i = 0; i < 3; ++i) {
            std::int64_t sums[2];
            CHECK_INT(sizeof sums, results[i].size());
            std::copy_n(results[i].data(), sizeof sums, reinterpret_cast<char *>(sums));
            CHECK_INT(expected[i], sums[0]);
            CHECK_INT(100, sums[1]);
        }
    }
}

TEST(an_exception_comes_back_with_its_text_and_item) {
    const std::vector<std::string> words = {"good", "good", "bad", "good"};
    for (const char *backend : backends) {
        const pb::scope scope(backend, {2});
        bool caught = false;
        try {
            pb::map_bytes(words, [](std::string_view word) {
                if (word == "bad") {
                    throw std::invalid_argument("a bad word");
                }
                return std::string(word);
            });
        } catch (const pb::error &failed) {
            caught = true;
            CHECK_INT(PB_ERR_TASK_FAILED, failed.status());
            CHECK_INT(2, failed.index());
            CHECK(std::string_view(failed.what()).find("a bad word") != std::string_view::npos);
        }
        CHECK(caught);
    }
}

TEST(a_result_that_there_is_not_throws) {
    const auto results = pb::map_bytes(std::vector<std::string>(2), reversed);
    CHECK(results[1].empty());
    bool caught = false;
    try {
        static_cast<void>(results[2]);
    } catch (const pb::error &failed) {
        caught = failed.status() == PB_ERR_INVALID_ARGUMENT;
    }
    CHECK(caught);
}

} // namespace

int main() {
    RUN(strings_become_strings);
    RUN(vectors_of_numbers_are_bytes_too_and_a_callable_may_have_state);
    RUN(an_exception_comes_back_with_its_text_and_item);
    RUN(a_result_that_there_is_not_throws);
    CHECK_OK(pb_shutdown());
    return check_result();
}
