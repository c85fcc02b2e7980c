# parallel_backend.jl: parallel_backend for Julia, from 1.5 on, by ccall.
#
# A thread that Julia does not know cannot run Julia code before 1.9, so the tasks of a map are native: pointers to C
# functions that work on Julia's arrays. While a map runs, Julia's event loop runs too.
module ParallelBackend

export with_backend, with_thread_limit, current_backend, effective_n_jobs, parallel_map!, submit, cancel, isready,
       thread_pools, PBError

# By soname: a path, or what LD_LIBRARY_PATH leads to.
const library = get(ENV, "PARALLEL_BACKEND_LIB", "libparallel_backend.so.0.1")

const PB_PENDING = Int32(1)

"What a call ended with: the name of its status, the library's text, and which item it concerns, from 1, if any."
struct PBError <: Exception
    status::String
    message::String
    item::Union{Int,Nothing}
end

Base.showerror(io::IO, error::PBError) = print(io, error.status, ": ", error.message)

# pb_error_info
struct ErrorInfo
    struct_size::Csize_t
    status::Int32
    task_code::Int32
    task_index::Csize_t
    exit_code::Int32
    signal::Int32
    attempts::UInt32
    reserved::UInt32
end

# This thread's last error. It stays with the thread, and no task can be switched on the way here.
function last_error()
    info = Ref(ErrorInfo(sizeof(ErrorInfo), 0, 0, 0, 0, 0, 0, 0))
    ccall((:pb_last_error_info, library), Int32, (Ref{ErrorInfo},), info)
    index = info[].task_index
    name = unsafe_string(ccall((:pb_status_name, library), Cstring, (Int32,), info[].status))
    message = unsafe_string(ccall((:pb_last_error, library), Cstring, ()))
    PBError(name, message, index == typemax(Csize_t) ? nothing : Int(index) + 1)
end

check(status) = status < 0 ? throw(last_error()) : status

# ---- contexts ----------------------------------------------------------------------------------------------------

mutable struct Context
    handle::Ptr{Cvoid}
    function Context(handle)
        handle == C_NULL && throw(last_error())
        context = new(handle)
        finalizer(c -> ccall((:pb_context_free, library), Cvoid, (Ptr{Cvoid},), c.handle), context)
    end
end

function pop_backend(scope)
    check(ccall((:pb_pop_backend, library), Int32, (UInt64,), scope))
end

# A scope of the library belongs to a thread, but a Julia task shares its thread with others, and may move to another
# one. So the task keeps a context, and puts it in force for one call, in which it cannot be switched.
function in_context(f)
    context = get(task_local_storage(), :parallel_backend, nothing)
    context === nothing && return f()
    scope = Ref{UInt64}(0)
    GC.@preserve context begin
        check(ccall((:pb_context_attach, library), Int32, (Ptr{Cvoid}, Ref{UInt64}), context.handle, scope))
    end
    try
        f()
    finally
        pop_backend(scope[])
    end
end

# A text for C, which a ccall can only take where it is not NULL.
c_text(text::Nothing) = nothing
c_text(text) = Base.cconvert(Cstring, String(text))
pointer_to(text::Nothing) = C_NULL
pointer_to(text) = Base.unsafe_convert(Cstring, text)

"""
    with_backend(f, backend; n_jobs = 0, inner_max_num_threads = 0, params = nothing)

Maps that `f` and what it calls run use this backend; `nothing` keeps the enclosing one. It holds for the calling task;
tasks that it starts begin without. What is not given is as in `pb_push_backend`.
"""
function with_backend(f, backend; n_jobs = 0, inner_max_num_threads = 0, params = nothing)
    backend, params = c_text(backend), c_text(params)
    context = in_context() do
        scope = Ref{UInt64}(0)
        GC.@preserve backend params begin
            check(ccall((:pb_push_backend, library), Int32, (Cstring, Int32, Int32, Cstring, Ref{UInt64}),
                        pointer_to(backend), n_jobs, inner_max_num_threads, pointer_to(params), scope))
        end
        try
            Context(ccall((:pb_context_capture, library), Ptr{Cvoid}, ()))
        finally
            pop_backend(scope[])
        end
    end
    task_local_storage(f, :parallel_backend, context)
end

"The name of the backend in force."
current_backend() = in_context(() -> unsafe_string(ccall((:pb_current_backend, library), Cstring, ())))

"Workers that a map would use."
effective_n_jobs() = Int(in_context(() -> check(ccall((:pb_effective_n_jobs, library), Int32, (Int32,), 0))))

# ---- maps --------------------------------------------------------------------------------------------------------

"A map that runs, or has run. It keeps its arrays alive."
mutable struct Job
    handle::Ptr{Cvoid}
    buffers::Tuple
end

# Elements of an array as items: one by one, or each slice along the last dimension.
items(array::Vector) = length(array), sizeof(eltype(array))
items(array::Array) = size(array)[end], sizeof(eltype(array)) * prod(size(array)[1:end-1])

"""
    submit(task, output, input; ctx = nothing)

Starts a map of the native `task` (a pointer to a `pb_task_fn`) over the elements of two vectors, or over the slices
of two arrays along their last dimension. `ctx` is a `Ref` that is passed to every item. Returns a job to `wait` for.
"""
function submit(task::Ptr{Cvoid}, output::Array, input::Array; ctx = nothing)
    all(isbitstype, (eltype(output), eltype(input))) || throw(ArgumentError("elements must be plain data"))
    (n, output_size), (n_inputs, input_size) = items(output), items(input)
    n == n_inputs || throw(DimensionMismatch("$n outputs for $n_inputs inputs"))
    handle = Ref{Ptr{Cvoid}}(C_NULL)
    job = Job(C_NULL, (output, input, ctx))
    GC.@preserve job in_context() do
        pointer_to_ctx = ctx === nothing ? C_NULL : Base.unsafe_convert(Ptr{Cvoid}, ctx)
        check(ccall((:pb_submit_map, library), Int32,
                    (Ptr{Cvoid}, Ptr{Cvoid}, Csize_t, Ptr{Cvoid}, Csize_t, Ptr{Cvoid}, Csize_t, Ptr{Cvoid},
                     Ref{Ptr{Cvoid}}),
                    task, pointer_to_ctx, n, input, input_size, output, output_size, C_NULL, handle))
    end
    job.handle = handle[]
    finalizer(close, job)
end

ask(job::Job, seconds) = ccall((:pb_job_wait, library), Int32, (Ptr{Cvoid}, Cdouble), job.handle, seconds)

"Whether the job is over."
Base.isready(job::Job) = GC.@preserve job ask(job, 0) != PB_PENDING

"Asks the job to stop. `wait` then throws."
function cancel(job::Job)
    GC.@preserve job check(ccall((:pb_job_cancel, library), Int32, (Ptr{Cvoid},), job.handle))
    nothing
end

# Frees the job; one that runs is cancelled and waited for.
function Base.close(job::Job)
    handle, job.handle = job.handle, C_NULL
    ccall((:pb_job_free, library), Cvoid, (Ptr{Cvoid},), handle)
end

"""
    wait(job)

Waits until the job is over, while other tasks run; throws a `PBError` if it failed. An exception that is thrown into
the waiting task, such as an interrupt, cancels the job.
"""
function Base.wait(job::Job)
    over = Base.AsyncCondition()
    # libuv's function has the type of pb_job_notify's, and may be called on any thread.
    check(ccall((:pb_job_notify, library), Int32, (Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Cvoid}),
                job.handle, cglobal(:uv_async_send), over.handle))
    try
        wait(over)
    catch
        cancel(job)
        wait(over) # not to be closed before it was called
        rethrow()
    finally
        close(over)
    end
    GC.@preserve job check(ask(job, 0))
    nothing
end

"""
    timedwait(job, seconds)

Waits until the job is over (`:ok`) or the time is up (`:timed_out`), while other tasks run.
"""
Base.timedwait(job::Job, seconds::Real) = timedwait(() -> isready(job), float(seconds), pollint = 0.01)

"""
    parallel_map!(task, output, input; ctx = nothing)

Runs a map and waits for it: see `submit`.
"""
function parallel_map!(task::Ptr{Cvoid}, output::Array, input::Array; ctx = nothing)
    job = submit(task, output, input; ctx = ctx)
    try
        wait(job)
    finally
        close(job)
    end
    output
end

# ---- native thread pools -----------------------------------------------------------------------------------------

# pb_thread_pool
struct CThreadPool
    struct_size::Csize_t
    user_api::Cstring
    internal_api::Cstring
    prefix::Cstring
    filepath::Cstring
    version::Cstring
    threading_layer::Cstring
    architecture::Cstring
    scope::Cstring
    num_threads::Int32
    controllable::Int32
end

text(c::Cstring) = c == C_NULL ? nothing : unsafe_string(c)

function thread_pool(i)
    c = Ref(CThreadPool(sizeof(CThreadPool), ntuple(_ -> Cstring(C_NULL), 8)..., 0, 0))
    check(ccall((:pb_thread_pool_get, library), Int32, (Csize_t, Ref{CThreadPool}), i, c))
    pool = c[]
    (user_api = text(pool.user_api), internal_api = text(pool.internal_api), version = text(pool.version),
     scope = text(pool.scope), num_threads = Int(pool.num_threads), filepath = text(pool.filepath))
end

"The thread pools of native libraries that are loaded now."
thread_pools() = [thread_pool(i - 1) for i in 1:ccall((:pb_thread_pool_count, library), Csize_t, ())]

"""
    with_thread_limit(f, n)

BLAS and OpenMP use `n` threads while `f` runs. `f` must not let other tasks run: the limit is the thread's.
"""
function with_thread_limit(f, n)
    scope = Ref{UInt64}(0)
    check(ccall((:pb_push_thread_limit, library), Int32, (Int32, UInt32, Ref{UInt64}), n, 0, scope))
    try
        f()
    finally
        check(ccall((:pb_pop_thread_limit, library), Int32, (UInt64,), scope[]))
    end
end

end
