#include "server/multipart.h"

#include <fmt/format.h>

namespace braid::server {
namespace {

constexpr size_t kMaxParts = 16;
constexpr size_t kMaxPartHeader = 4096;

tl::unexpected<ApiError> bad(std::string message) {
  return tl::unexpected<ApiError>({.message = std::move(message)});
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return out;
}

// The value of `key` among "a; key=value; other=\"quoted\"". "" where there is none.
std::string parameter(std::string_view header, std::string_view key) {
  size_t at = 0;
  while ((at = header.find(';', at)) != header.npos) {
    ++at;
    while (at < header.size() && header[at] == ' ') ++at;
    const size_t equals = header.find('=', at);
    if (equals == header.npos) return "";
    const bool is_wanted = lower(header.substr(at, equals - at)) == key;
    size_t end;
    std::string value;
    if (equals + 1 < header.size() && header[equals + 1] == '"') {
      end = header.find('"', equals + 2);
      if (end == header.npos) return "";
      value = header.substr(equals + 2, end - equals - 2);
    } else {
      end = std::min(header.find(';', equals), header.size());
      value = header.substr(equals + 1, end - equals - 1);
    }
    if (is_wanted) return value;
    at = end;
  }
  return "";
}

}  // namespace

ApiResult<std::vector<FormPart>> split_form(std::string_view content_type, std::string_view body) {
  if (!lower(content_type).starts_with("multipart/form-data"))
    return bad(fmt::format("the content type is \"{}\", it must be multipart/form-data",
                           content_type.substr(0, 100)));
  const std::string boundary = parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > 70) return bad("multipart/form-data has no boundary");
  const std::string mark = "--" + boundary;
  const std::string next = "\r\n" + mark;

  std::vector<FormPart> parts;
  size_t at = body.find(mark);
  if (at != 0 && (at == body.npos || body.substr(at - std::min<size_t>(at, 2), 2) != "\r\n"))
    return bad("the multipart body has no part");
  at += mark.size();
  while (!body.substr(at).starts_with("--")) {
    if (!body.substr(at).starts_with("\r\n")) return bad("the multipart body is cut off");
    at += 2;
    const std::string_view head = body.substr(at, kMaxPartHeader);
    const size_t head_end = head.find("\r\n\r\n");
    if (head_end == head.npos) return bad("a part of the multipart body has no end of its header");
    const size_t begin = at + head_end + 4;
    const size_t end = body.find(next, begin);
    if (end == body.npos) return bad("a part of the multipart body does not end");
    if (parts.size() == kMaxParts) return bad(fmt::format("more than {} parts", kMaxParts));
    FormPart& part = parts.emplace_back();
    part.data = body.substr(begin, end - begin);
    std::string_view lines = head.substr(0, head_end);
    while (!lines.empty()) {
      const size_t line_end = std::min(lines.find("\r\n"), lines.size());
      const std::string_view line = lines.substr(0, line_end);
      lines.remove_prefix(std::min(line_end + 2, lines.size()));
      if (!lower(line).starts_with("content-disposition:")) continue;
      part.name = parameter(line, "name");
      part.file_name = parameter(line, "filename");
    }
    at = end + next.size();
  }
  return parts;
}

}  // namespace braid::server
