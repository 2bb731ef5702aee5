#include "services/base/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/base/text.h"
#include "tests/support/status_matchers.h"

namespace temper::base {
namespace {

using ::temper::testing::StatusIs;
using ::testing::HasSubstr;

TEST(AddressTest, ReadsHostAndPort) {
  EXPECT_EQ(ParseHostPort("127.0.0.1:80")->host, "127.0.0.1");
  EXPECT_EQ(ParseHostPort("worker-3:65535")->port, 65535);
  EXPECT_EQ(ParseHostPort("[::1]:0")->host, "::1");
}

TEST(AddressTest, RefusesWhatIsNotAnAddressAndQuotesIt) {
  for (const char* text : {"", "host", "host:", ":80", "host:65536", "host:-1", "host: 80",
                           "host:80x", "::1:80", "[::1:80", "[]:80", "host:99999999999999999999"}) {
    EXPECT_THAT(ParseHostPort(text),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(Cat("\"", text, "\""))))
        << text;
  }
}

TEST(AddressTest, KnowsLoopback) {
  for (const char* host : {"127.0.0.1", "127.8.9.10", "::1", "localhost"}) {
    EXPECT_TRUE(IsLoopback(host)) << host;
  }
  for (const char* host :
       {"0.0.0.0", "::", "10.0.0.1", "example.org", "", "127.0.0.1.example.org"}) {
    EXPECT_FALSE(IsLoopback(host)) << host;
  }
}

TEST(AddressTest, RealHostIsAdvertisedAsItIs) {
  EXPECT_EQ(AdvertisedAddress("127.0.0.1", 5), "127.0.0.1:5");
  EXPECT_EQ(AdvertisedAddress("::1", 5), "[::1]:5");
}

TEST(AddressTest, WildcardBecomesTheAddressTowardsThePeer) {
  EXPECT_EQ(AdvertisedAddress("0.0.0.0", 5, "127.0.0.1:9"), "127.0.0.1:5");
  EXPECT_EQ(AdvertisedAddress("0.0.0.0", 5).find("0.0.0.0"), std::string::npos);
}

}  // namespace
}  // namespace temper::base
