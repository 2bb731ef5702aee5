// CheckHealth: grpc.health.v1.Health/Check by hand. Debian ships the service, not its messages, and
// the two are a few bytes: the request for the whole server is empty, the answer is field 1, an
// enum.

#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "services/base/text.h"
#include "services/rpc/client.h"

namespace temper::rpc {
namespace {

constexpr char kCheckMethod[] = "/grpc.health.v1.Health/Check";
constexpr std::string_view kServing = "\x08\x01";

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return "";
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

}  // namespace

absl::Status CheckHealth(const std::shared_ptr<grpc::Channel>& channel,
                         const CallOptions& options) {
  grpc::GenericStub stub(channel);
  return CallWithRetries(options, [&](grpc::ClientContext* context) {
    const grpc::Slice empty;
    grpc::ByteBuffer request(&empty, 1);
    grpc::ByteBuffer response;
    grpc::Status status;
    absl::Notification done;
    stub.UnaryCall(context, kCheckMethod, grpc::StubOptions(), &request, &response,
                   [&](grpc::Status result) {
                     status = std::move(result);
                     done.Notify();
                   });
    done.WaitForNotification();  // ends by the context's deadline
    if (status.ok() && Bytes(response) != kServing) {
      status = grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server says it is not serving");
    }
    return status;
  });
}

}  // namespace temper::rpc
