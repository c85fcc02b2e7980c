// pb::trace: a timeline that ends with its block.
#include "status_of.h"
#include "trace_file.h"

#include <parallel_backend.hpp>

#include <stdexcept>
#include <type_traits>
#include <utility>

namespace {

void map_once() {
    pb::for_each(10, [](std::size_t) {});
}

std::string path(const char *name) { return in_folder(name); }

TEST(the_end_of_the_block_writes_the_file) {
    {
        const pb::trace timeline(path("block.json"));
        map_once();
    }
    map_once();
    CHECK_INT(1, maps_in(in_folder("block.json")));
}

TEST(so_does_an_exception_that_leaves_it) {
    try {
        const pb::trace timeline(path("left.json"));
        map_once();
        throw std::runtime_error("out");
    } catch (const std::runtime_error &) {
        CHECK_INT(1, maps_in(in_folder("left.json")));
    }
}

TEST(stop_ends_it_early_and_once) {
    pb::trace timeline(path("stop.json"));
    timeline.stop();
    map_once();
    timeline.stop();
    CHECK_INT(0, maps_in(in_folder("stop.json")));
}

TEST(errors_of_both_ends_are_thrown) {
    CHECK_INT(PB_ERR_IO, status_of([] { pb::trace timeline("/no/such/folder/trace.json"); }));
    pb::trace timeline(path("first.json"));
    CHECK_INT(PB_ERR_EXISTS, status_of([] { pb::trace second(path("second.json")); }));
    CHECK_OK(pb_trace_stop());
    CHECK_INT(PB_ERR_SCOPE, status_of([&timeline] { timeline.stop(); }));
}

TEST(a_timeline_that_was_moved_away_ends_nothing) {
    static_assert(!std::is_copy_constructible_v<pb::trace> && !std::is_move_assignable_v<pb::trace>);
    pb::trace first(path("moved.json"));
    {
        pb::trace second(std::move(first));
        first.stop();
        map_once();
    }
    CHECK_INT(1, maps_in(in_folder("moved.json")));
}

} // namespace

int main() {
    CHECK_INT(0, unsetenv("PB_TRACE"));
    make_folder();
    RUN(the_end_of_the_block_writes_the_file);
    RUN(so_does_an_exception_that_leaves_it);
    RUN(stop_ends_it_early_and_once);
    RUN(errors_of_both_ends_are_thrown);
    RUN(a_timeline_that_was_moved_away_ends_nothing);
    remove_folder();
    CHECK_OK(pb_shutdown());
    return check_result();
}
