#include "weights/collective_communicator.h"

#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "services/base/log.h"
#include "services/base/status_macros.h"

namespace temper::weights {

// One thread and the group it has a rank in. Its calls run one after the other; an abort interrupts
// the one that runs.
class CollectiveCommunicator::Worker final {
 public:
  explicit Worker(std::shared_ptr<const CommunicatorOptions> options)
      : options_(std::move(options)) {}

  // The thread keeps `self` alive, so that it may be abandoned.
  static void Start(const std::shared_ptr<Worker>& self) {
    self->thread_ = std::thread([self] { self->Run(); });
  }

  struct Task {
    enum class Kind { kForm, kBroadcast, kAbort };
    Kind kind = Kind::kForm;
    uint64_t comm_epoch = 0;
    std::vector<std::string> members;  // of kForm
    uint64_t version = 0;              // of kBroadcast
  };

  void Begin(Task task) {
    absl::MutexLock lock(&mutex_);
    aborting_ = false;
    progress_ = {.state = CommProgress::State::kRunning};
    task_ = std::move(task);
  }

  void BeginAbort(uint64_t comm_epoch) {
    std::shared_ptr<Collective> collective;
    {
      absl::MutexLock lock(&mutex_);
      aborting_ = true;
      progress_ = {.state = CommProgress::State::kRunning};
      task_ = Task{.kind = Task::Kind::kAbort, .comm_epoch = comm_epoch};
      collective = collective_;
    }
    if (collective != nullptr) collective->Abort("the epoch ends");
  }

  CommProgress Poll() {
    absl::MutexLock lock(&mutex_);
    if (!progress_.lost.empty()) {
      return {.state = CommProgress::State::kRunning,
              .lost = std::exchange(progress_.lost, std::vector<std::string>())};
    }
    if (progress_.state == CommProgress::State::kRunning) return progress_;
    return std::exchange(progress_, CommProgress());
  }

  // Interrupts and joins; false if the thread did not come back by `deadline`, and is let go.
  bool Close(absl::Time deadline) {
    std::shared_ptr<Collective> collective;
    {
      absl::MutexLock lock(&mutex_);
      quit_ = true;
      aborting_ = true;
      collective = collective_;
    }
    if (collective != nullptr) collective->Abort("the process stops");
    bool ended = false;
    {
      absl::MutexLock lock(&mutex_);
      ended = mutex_.AwaitWithDeadline(absl::Condition(&ended_), deadline);
      if (!ended) {
        // What a hook uses may go when this returns; all of them come back by themselves.
        const auto outside = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !in_hook_; };
        mutex_.Await(absl::Condition(&outside));
        ended = ended_;
      }
      abandoned_ = !ended;
    }
    ended ? thread_.join() : thread_.detach();
    return ended;
  }

 private:
  void Run() {
    while (std::optional<Task> task = Next()) {
      switch (task->kind) {
        case Task::Kind::kForm:
          Form(*task);
          break;
        case Task::Kind::kBroadcast:
          Broadcast(*task);
          break;
        case Task::Kind::kAbort:
          End(task->comm_epoch);
          Answer(Task::Kind::kAbort, absl::OkStatus(), {});
          break;
      }
    }
    if (announced_ != 0) End(announced_);
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

  std::optional<Task> Next() {
    absl::MutexLock lock(&mutex_);
    const auto due = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return quit_ || abandoned_ || task_.has_value();
    };
    mutex_.Await(absl::Condition(&due));  // whoever owns the worker raises one of them
    if (quit_ || abandoned_) return std::nullopt;
    return std::exchange(task_, std::nullopt);
  }

  // Runs `hook`, unless what it uses may be gone; false then.
  bool CallHook(absl::FunctionRef<void()> hook) {
    {
      absl::MutexLock lock(&mutex_);
      if (abandoned_) return false;
      in_hook_ = true;
    }
    hook();
    absl::MutexLock lock(&mutex_);
    in_hook_ = false;
    return true;
  }

  // Gives up the rank and makes known that the epoch is over.
  void End(uint64_t comm_epoch) {
    {
      std::shared_ptr<Collective> collective;
      absl::MutexLock lock(&mutex_);
      collective.swap(collective_);
    }
    announced_ = 0;
    CallHook([&] { options_->hooks.end(comm_epoch); });
  }

  // Takes the rank where an abort finds it; false if the epoch ends already.
  bool Hold(std::shared_ptr<Collective> collective) {
    absl::MutexLock lock(&mutex_);
    if (aborting_ || abandoned_) return false;
    collective_ = std::move(collective);
    return true;
  }

  void Form(const Task& task) {
    members_ = task.members;
    const absl::Status formed = MeetAll(task);
    std::vector<std::string> lost;
    if (!formed.ok()) lost = LostMembers();
    Answer(task.kind, formed, std::move(lost));
  }

  absl::Status MeetAll(const Task& task) {
    const absl::Time deadline = absl::Now() + options_->form_timeout;
    TEMPER_ASSIGN_OR_RETURN(const std::string id, options_->back_end->MakeId());
    TEMPER_ASSIGN_OR_RETURN(
        std::shared_ptr<Collective> collective,
        options_->back_end->Join(
            {.id = id, .rank = 0, .world_size = static_cast<int>(task.members.size()) + 1}));
    if (!Hold(collective)) return absl::AbortedError("the epoch ends");
    announced_ = task.comm_epoch;  // also where the answer to it is lost
    absl::Status announced = absl::AbortedError("abandoned");
    CallHook(
        [&] { announced = options_->hooks.announce(task.comm_epoch, id, task.members, deadline); });
    TEMPER_RETURN_IF_ERROR(announced);
    return collective->Form(deadline);
  }

  void Broadcast(const Task& task) {
    const std::shared_ptr<Collective> collective = Held();
    std::shared_ptr<const WeightVersion> version;
    if (!CallHook([&] { version = options_->hooks.find(task.version); })) return;
    absl::Status status;
    if (collective == nullptr || version == nullptr) {
      status = absl::NotFoundError(absl::StrCat("version ", task.version, " cannot be sent"));
    } else if (version->manifest().comm_epoch() != task.comm_epoch) {
      status = absl::FailedPreconditionError(
          absl::StrCat("the manifest of version ", task.version, " names epoch ",
                       version->manifest().comm_epoch(), ", not ", task.comm_epoch));
    } else {
      status = collective->Send(version, absl::Now() + options_->broadcast_timeout);
    }
    std::vector<std::string> lost;
    if (!status.ok()) lost = LostMembers();
    Answer(task.kind, status, std::move(lost));
  }

  std::shared_ptr<Collective> Held() {
    absl::MutexLock lock(&mutex_);
    return collective_;
  }

  std::vector<std::string> LostMembers() {
    std::vector<std::string> lost;
    const std::shared_ptr<Collective> collective = Held();
    if (collective == nullptr) return lost;
    for (const int rank : collective->Lost()) {
      lost.push_back(members_[static_cast<size_t>(rank) - 1]);
    }
    return lost;
  }

  // What a call came to, unless an abort has replaced it.
  void Answer(Task::Kind kind, const absl::Status& status, std::vector<std::string> lost) {
    {
      absl::MutexLock lock(&mutex_);
      if (abandoned_ || (aborting_ && kind != Task::Kind::kAbort)) return;
      progress_ = {.state = status.ok() ? CommProgress::State::kDone : CommProgress::State::kFailed,
                   .error = status.ToString(),
                   .lost = std::move(lost)};
    }
    if (options_->hooks.progressed) CallHook([this] { options_->hooks.progressed(); });
  }

  const std::shared_ptr<const CommunicatorOptions> options_;
  std::thread thread_;
  std::vector<std::string> members_;  // of the group, by rank from 1; the thread's own
  uint64_t announced_ = 0;            // epoch that members may know of; the thread's own
  absl::Mutex mutex_;
  std::optional<Task> task_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<Collective> collective_ ABSL_GUARDED_BY(mutex_);  // shared with who aborts it
  CommProgress progress_ ABSL_GUARDED_BY(mutex_);
  bool aborting_ ABSL_GUARDED_BY(mutex_) = false;  // what the call in flight comes to is dropped
  bool in_hook_ ABSL_GUARDED_BY(mutex_) = false;
  bool quit_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool abandoned_ ABSL_GUARDED_BY(mutex_) = false;
};

CollectiveCommunicator::CollectiveCommunicator(CommunicatorOptions options)
    : options_(std::make_shared<const CommunicatorOptions>(std::move(options))) {}

CollectiveCommunicator::~CollectiveCommunicator() {
  if (worker_ == nullptr) return;
  if (!worker_->Close(absl::Now() + options_->close_timeout)) {
    base::LogWarning("communicator_abandoned", {{"reason", "it did not end with the process"}});
  }
}

void CollectiveCommunicator::BeginForm(uint64_t comm_epoch,
                                       const std::vector<std::string>& members) {
  if (worker_ == nullptr) {
    worker_ = std::make_shared<Worker>(options_);
    Worker::Start(worker_);
  }
  worker_->Begin({.kind = Worker::Task::Kind::kForm, .comm_epoch = comm_epoch, .members = members});
}

void CollectiveCommunicator::BeginBroadcast(uint64_t comm_epoch, uint64_t version) {
  worker_->Begin(
      {.kind = Worker::Task::Kind::kBroadcast, .comm_epoch = comm_epoch, .version = version});
}

void CollectiveCommunicator::BeginAbort(uint64_t comm_epoch) { worker_->BeginAbort(comm_epoch); }

void CollectiveCommunicator::Abandon(uint64_t) {
  worker_->Close(absl::InfinitePast());
  worker_.reset();
}

CommProgress CollectiveCommunicator::Poll() {
  return worker_ == nullptr ? CommProgress{} : worker_->Poll();
}

}  // namespace temper::weights
