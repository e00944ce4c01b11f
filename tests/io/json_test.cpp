// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/json.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"

namespace flashvsr {
namespace {

TEST(Json, ReadsEveryKindOfValue) {
  const Json root = parse_json(R"( {"a": [1, -2.5e1, true, false, null, "x"], "b": {"c": {}}, "": []} )", "t");
  const auto& a = root.at("a").items();
  ASSERT_EQ(a.size(), 6u);
  EXPECT_EQ(a[0].integer(), 1);
  EXPECT_EQ(a[0].number(), 1.0);
  EXPECT_EQ(a[1].number(), -25.0);
  EXPECT_TRUE(a[2].boolean());
  EXPECT_FALSE(a[3].boolean());
  EXPECT_TRUE(a[4].is(Json::Type::kNull));
  EXPECT_EQ(a[5].text(), "x");
  EXPECT_TRUE(root.at("b").at("c").members().empty());
  EXPECT_NE(root.find(""), nullptr);
  EXPECT_EQ(root.find("d"), nullptr);
  EXPECT_EQ(root.members()[1].key, "b");
}

TEST(Json, IntegersAreExact) {
  EXPECT_EQ(parse_json("9223372036854775807", "t").integer(), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse_json("-9223372036854775808", "t").integer(), std::numeric_limits<int64_t>::min());
  EXPECT_EQ(parse_json("9007199254740993", "t").integer(), 9007199254740993);
  EXPECT_THROW(parse_json("1.0", "t").integer(), Error);
  EXPECT_THROW(parse_json("1e2", "t").integer(), Error);
}

TEST(Json, StringsAreUnescaped) {
  EXPECT_EQ(parse_json(R"("\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00")", "t").text(), "\"\\/\b\f\n\r\t\xc3\xa9\xf0\x9f\x98\x80");
}

TEST(Json, WrongTypesNameBoth) {
  const Json root = parse_json(R"({"a": "b"})", "t");
  try {
    root.at("a").integer();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()), "JSON: found a string, expected an integer");
    EXPECT_EQ(error.code(), ErrorCode::kModelInvalid);
  }
  EXPECT_THROW(root.at("b"), Error);
  EXPECT_THROW(root.items(), Error);
  EXPECT_THROW(root.at("a").members(), Error);
  EXPECT_THROW(root.at("a").boolean(), Error);
  EXPECT_THROW(root.at("a").number(), Error);
  EXPECT_THROW(root.text(), Error);
}

class BadJson : public testing::TestWithParam<const char*> {};
TEST_P(BadJson, IsRefused) {
  try {
    parse_json(GetParam(), "some.json");
    FAIL() << GetParam();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModelInvalid);
    EXPECT_EQ(std::string(error.what()).rfind("some.json: JSON, byte ", 0), 0u) << error.what();
  }
}
INSTANTIATE_TEST_SUITE_P(
    Json, BadJson,
    testing::Values("", " ", "{", "[", "}", "[1", "[1,", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{\"a\":1 \"b\":2}",
                    "{\"a\":1,\"a\":2}", "1 2", "nul", "nulll", "True", "NaN", "Infinity", "-Infinity", "-", "+1", "01", "-01", "1.", ".5",
                    "1e", "1e+", "0x10", "1e999", "-1e999", "9223372036854775808", "-9223372036854775809",
                    "99999999999999999999999999999999", "\"", "\"\\", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800x\"",
                    "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\n\"", "\"\x01\"", "\"\x80\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf5\x80\x80\x80\"",
                    "\"\xe2\x82\"", "'a'", "[1]]", "// c\n1", "\xef\xbb\xbf{}"));

TEST(Json, DepthIsLimited) {
  EXPECT_NO_THROW(parse_json(std::string(33, '[') + std::string(33, ']'), "t"));
  EXPECT_THROW(parse_json(std::string(34, '[') + std::string(34, ']'), "t"), Error);
  EXPECT_THROW(parse_json(std::string(1000000, '['), "t"), Error);
  std::string objects;
  for (int i = 0; i < 1000; ++i) objects += "{\"a\":";
  EXPECT_THROW(parse_json(objects, "t"), Error);
}

TEST(Json, ValuesAreLimited) {
  JsonLimits limits;
  limits.values = 4;
  EXPECT_NO_THROW(parse_json("[1,2,3]", "t", limits));
  EXPECT_THROW(parse_json("[1,2,3,4]", "t", limits), Error);
}

TEST(Json, WrittenTextReadsBack) {
  for (const std::string text : {"", "plain", "\"quoted\\\"", "line\nbreak\ttab\x01", "\xc3\xa9"}) {
    EXPECT_EQ(parse_json(json_quote(text), "t").text(), text);
  }
  for (const double value : {0.0, 1.0, -2.5, 1e-6, 0.1, 1e300, 5e-324, 123456789.123}) {
    const Json json = parse_json(json_number(value), "t");
    EXPECT_EQ(json.type(), Json::Type::kDouble) << json_number(value);
    EXPECT_EQ(json.number(), value);
  }
  EXPECT_THROW(json_number(std::numeric_limits<double>::infinity()), Error);
}

}  // namespace
}  // namespace flashvsr
