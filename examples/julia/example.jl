# example.jl: Julia chooses a backend for a scope, and a native map runs over its arrays.
# Usage: julia example.jl TASKS, with the library that the Makefile built. The script `test` does both.
using Libdl, LinearAlgebra, Test

include("parallel_backend.jl")
using .ParallelBackend

const tasks = dlopen(ARGS[1])
const square_root, gram, until_flag = dlsym.(Ref(tasks), (:square_root, :gram, :until_flag))

# Julia's own BLAS, called from native tasks. (From 1.7 on BLAS.libblas is a trampoline that has no count of threads.)
const blas = dlopen(first(filter(file -> occursin("libopenblas", file), dllist())))
blas_threads() = Int(ccall(dlsym(blas, BLAS.@blasfunc(openblas_get_num_threads)), Cint, ()))

# tasks.h: gram_context
struct GramContext
    dgemm::Ptr{Cvoid}
    get_num_threads::Ptr{Cvoid}
    n::Int64
    blas_threads::Ptr{Int32}
end

@testset "a map over vectors" begin
    x = collect(1.0:1000.0)
    for backend in ("sequential", "threading")
        y = with_backend(backend) do
            println(current_backend(), " with ", effective_n_jobs(), " worker(s)")
            parallel_map!(square_root, similar(x), x)
        end
        @test y ≈ sqrt.(x)
    end
    @test current_backend() == "threading" # the default again
    @test with_backend(() -> with_backend(effective_n_jobs, nothing; n_jobs = 3), "threading") == 3
end

@testset "Julia's BLAS keeps to its share inside the tasks" begin
    BLAS.set_num_threads(2)
    pools = filter(pool -> pool.user_api == "blas", thread_pools())
    foreach(println, pools)
    @test [(pool.internal_api, pool.num_threads) for pool in pools] == [("openblas", 2)]
    @test with_thread_limit(blas_threads, 1) == 1
    @test blas_threads() == 2

    matrices = reshape(sin.(1:64*64*20), 64, 64, 20)
    seen = zeros(Int32, 20)
    ctx = Ref(GramContext(dlsym(blas, BLAS.@blasfunc(dgemm_)),
                          dlsym(blas, BLAS.@blasfunc(openblas_get_num_threads)), 64, pointer(seen)))
    products = with_backend("threading"; n_jobs = 2, inner_max_num_threads = 1) do
        GC.@preserve seen parallel_map!(gram, similar(matrices), matrices; ctx = ctx)
    end
    @test all(products[:, :, i] ≈ matrices[:, :, i]' * matrices[:, :, i] for i in 1:20)
    @test all(seen .== 1)
    @test blas_threads() == 2
end

@testset "errors are exceptions with the library's text" begin
    thrown(f) = try f(); nothing catch error error end
    error = thrown(() -> parallel_map!(square_root, zeros(3), [1.0, 4.0, -9.0]))
    println(sprint(showerror, error))
    @test error isa PBError && error.status == "PB_ERR_TASK_FAILED" && error.item == 3
    @test occursin("not positive", error.message)
    error = thrown(() -> with_backend(() -> nothing, "thread"))
    @test error.status == "PB_ERR_UNKNOWN_BACKEND" && occursin("sequential, threading", error.message)
    @test error.item === nothing
    @test_throws DimensionMismatch parallel_map!(square_root, zeros(2), zeros(3))
end

@testset "other Julia tasks run while one waits" begin
    # The map ends only when another task of Julia has set the flag.
    flag = Ref{Int32}(0)
    job = submit(until_flag, zeros(2), zeros(2); ctx = flag)
    @test timedwait(job, 0.05) == :timed_out
    @async begin
        GC.gc()
        flag[] = 1
    end
    @test wait(job) === nothing
    @test isready(job)
    close(job)

    # Scopes belong to Julia tasks: this one's does not reach the other that runs meanwhile.
    flag[] = 0
    with_backend("sequential") do
        job = submit(until_flag, zeros(1), zeros(1); ctx = flag)
        other = @async (flag[] = 1; current_backend())
        wait(job)
        @test (current_backend(), fetch(other)) == ("sequential", "threading")
        close(job)
    end
end

@testset "a job can be cancelled" begin
    flag = Ref{Int32}(0)
    job = submit(until_flag, zeros(4), zeros(4); ctx = flag)
    cancel(job)
    error = try wait(job) catch error error end
    @test error isa PBError && error.status == "PB_ERR_CANCELLED"
    close(job)
end

@testset "an exception in a waiting task cancels its job" begin
    flag = Ref{Int32}(0)
    job = submit(until_flag, zeros(1), zeros(1); ctx = flag)
    waiting = @async wait(job)
    yield()
    schedule(waiting, InterruptException(); error = true)
    @test (try fetch(waiting) catch error error end) isa Exception
    @test isready(job)
    close(job)
end
