// SPDX-License-Identifier: LGPL-2.1-or-later
#include "io/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "io/tensor_info.h"

namespace flashvsr {
namespace {

const char* type_name(Json::Type type) {
  switch (type) {
    case Json::Type::kNull: return "null";
    case Json::Type::kBool: return "a boolean";
    case Json::Type::kInteger: return "an integer";
    case Json::Type::kDouble: return "a number";
    case Json::Type::kString: return "a string";
    case Json::Type::kArray: return "an array";
    case Json::Type::kObject: return "an object";
  }
  return "nothing";
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Length of the UTF-8 sequence at `at`, 0 if it is none (overlong, surrogate, past U+10FFFF).
size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const size_t left = text.size() - at;
  const unsigned char first = byte(0);
  const auto follows = [&](size_t count, unsigned char low, unsigned char high) {
    if (left < count || byte(1) < low || byte(1) > high) return false;
    for (size_t i = 2; i < count; ++i) {
      if ((byte(i) & 0xC0) != 0x80) return false;
    }
    return true;
  };
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return follows(2, 0x80, 0xBF) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    const unsigned char low = first == 0xE0 ? 0xA0 : 0x80, high = first == 0xED ? 0x9F : 0xBF;
    return follows(3, low, high) ? 3 : 0;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    const unsigned char low = first == 0xF0 ? 0x90 : 0x80, high = first == 0xF4 ? 0x8F : 0xBF;
    return follows(4, low, high) ? 4 : 0;
  }
  return 0;
}

void append_utf8(std::string& out, uint32_t code) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

}  // namespace

class JsonParser {
 public:
  JsonParser(std::string_view text, const std::string& source, const JsonLimits& limits)
      : text_(text), source_(source), limits_(limits) {}

  Json parse() {
    Json root = value(0);
    skip_space();
    if (at_ != text_.size()) fail("something follows the value");
    return root;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorCode::kModelInvalid, concat(source_, ": JSON, byte ", at_, ": ", what));
  }

  void skip_space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) ++at_;
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  Json value(int depth) {
    if (depth > limits_.depth) fail(concat("nested deeper than ", limits_.depth));
    if (++values_ > limits_.values) fail(concat("more than ", limits_.values, " values"));
    skip_space();
    if (at_ >= text_.size()) fail("ends where a value is expected");
    Json json;
    switch (text_[at_]) {
      case '{': object(json, depth); break;
      case '[': array(json, depth); break;
      case '"':
        json.type_ = Json::Type::kString;
        json.text_ = string();
        break;
      case 't': word("true"); json.type_ = Json::Type::kBool; json.bool_ = true; break;
      case 'f': word("false"); json.type_ = Json::Type::kBool; break;
      case 'n': word("null"); break;
      default: number(json);
    }
    return json;
  }

  void word(std::string_view expected) {
    if (text_.substr(at_, expected.size()) != expected) fail("no JSON value begins like this");
    at_ += expected.size();
  }

  void array(Json& json, int depth) {
    json.type_ = Json::Type::kArray;
    ++at_;
    skip_space();
    if (take(']')) return;
    while (true) {
      json.items_.push_back(value(depth + 1));
      skip_space();
      if (take(']')) return;
      if (!take(',')) fail("',' or ']' is expected");
    }
  }

  void object(Json& json, int depth) {
    json.type_ = Json::Type::kObject;
    ++at_;
    skip_space();
    if (!take('}')) {
      while (true) {
        skip_space();
        if (peek() != '"') fail("a key in quotation marks is expected");
        std::string key = string();
        skip_space();
        if (!take(':')) fail("':' is expected");
        json.members_.push_back({std::move(key), value(depth + 1)});
        skip_space();
        if (take('}')) break;
        if (!take(',')) fail("',' or '}' is expected");
      }
    }
    std::vector<std::string_view> keys;
    keys.reserve(json.members_.size());
    for (const JsonMember& member : json.members_) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) fail(concat("the key \"", printable(std::string(*twice)), "\" stands twice in one object"));
  }

  uint32_t hex4() {
    if (text_.size() - at_ < 4) fail("ends inside an escape");
    uint32_t code = 0;
    const char* begin = text_.data() + at_;
    const auto result = std::from_chars(begin, begin + 4, code, 16);
    if (result.ec != std::errc() || result.ptr != begin + 4) fail("four hexadecimal digits are expected");
    at_ += 4;
    return code;
  }

  void escape(std::string& out) {
    if (at_ >= text_.size()) fail("ends inside a string");
    switch (text_[at_++]) {
      case '"': out.push_back('"'); return;
      case '\\': out.push_back('\\'); return;
      case '/': out.push_back('/'); return;
      case 'b': out.push_back('\b'); return;
      case 'f': out.push_back('\f'); return;
      case 'n': out.push_back('\n'); return;
      case 'r': out.push_back('\r'); return;
      case 't': out.push_back('\t'); return;
      case 'u': break;
      default: fail("unknown escape");
    }
    uint32_t code = hex4();
    if (code >= 0xD800 && code < 0xDC00) {
      if (!take('\\') || !take('u')) fail("half a surrogate pair");
      const uint32_t low = hex4();
      if (low < 0xDC00 || low > 0xDFFF) fail("half a surrogate pair");
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code < 0xE000) {
      fail("half a surrogate pair");
    }
    append_utf8(out, code);
  }

  std::string string() {
    ++at_;
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("ends inside a string");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c == '\\') {
        ++at_;
        escape(out);
        continue;
      }
      if (c < 0x20) fail("control character in a string");
      const size_t length = utf8_length(text_, at_);
      if (length == 0) fail("invalid UTF-8");
      out.append(text_.substr(at_, length));
      at_ += length;
    }
  }

  void digits() {
    if (!is_digit(peek())) fail("no JSON value begins like this");
    while (is_digit(peek())) ++at_;
  }

  void number(Json& json) {
    const size_t begin = at_;
    bool is_integer = true;
    take('-');
    if (peek() == '0') {
      ++at_;
      if (is_digit(peek())) fail("a number begins with a superfluous zero");
    } else {
      digits();
    }
    if (take('.')) {
      is_integer = false;
      digits();
    }
    if (peek() == 'e' || peek() == 'E') {
      is_integer = false;
      ++at_;
      if (!take('+')) take('-');
      digits();
    }
    const char *first = text_.data() + begin, *last = text_.data() + at_;
    if (is_integer) {
      json.type_ = Json::Type::kInteger;
      if (std::from_chars(first, last, json.integer_).ec != std::errc()) fail("integer does not fit 64 bits");
      json.double_ = static_cast<double>(json.integer_);
    } else {
      json.type_ = Json::Type::kDouble;
      if (std::from_chars(first, last, json.double_).ec != std::errc()) fail("number does not fit a double");
    }
  }

  std::string_view text_;
  const std::string& source_;
  const JsonLimits limits_;
  size_t at_ = 0;
  size_t values_ = 0;
};

Json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits) {
  return JsonParser(text, source, limits).parse();
}

void Json::wrong_type(const char* expected) const {
  throw Error(ErrorCode::kModelInvalid, concat("JSON: found ", type_name(type_), ", expected ", expected));
}

bool Json::boolean() const {
  if (type_ != Type::kBool) wrong_type("a boolean");
  return bool_;
}

int64_t Json::integer() const {
  if (type_ != Type::kInteger) wrong_type("an integer");
  return integer_;
}

double Json::number() const {
  if (type_ != Type::kDouble && type_ != Type::kInteger) wrong_type("a number");
  return double_;
}

const std::string& Json::text() const {
  if (type_ != Type::kString) wrong_type("a string");
  return text_;
}

const std::vector<Json>& Json::items() const {
  if (type_ != Type::kArray) wrong_type("an array");
  return items_;
}

const std::vector<JsonMember>& Json::members() const {
  if (type_ != Type::kObject) wrong_type("an object");
  return members_;
}

const Json* Json::find(std::string_view key) const {
  for (const JsonMember& member : members()) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  const Json* value = find(key);
  FLASHVSR_CHECK(value != nullptr, ErrorCode::kModelInvalid, "JSON: the field ", json_quote(key), " is missing");
  return *value;
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      constexpr char kHex[] = "0123456789abcdef";
      out += "\\u00";
      out.push_back(kHex[c >> 4]);
      out.push_back(kHex[c & 15]);
    } else {
      out.push_back(c);
    }
  }
  return out + '"';
}

std::string json_number(double value) {
  FLASHVSR_CHECK(std::isfinite(value), ErrorCode::kInternal, "JSON: cannot write a number that is not finite");
  char text[32];
  const auto result = std::to_chars(text, text + sizeof text, value);
  std::string out(text, result.ptr);
  // Stays a double when read again.
  if (out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

}  // namespace flashvsr
