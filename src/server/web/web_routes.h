#pragma once

#include <span>
#include <string_view>

namespace braid::server {

class Router;

// A file of the web page, as it lies in this folder; embedded when the program is built.
struct WebFile {
  std::string_view name;
  std::string_view bytes;
};

std::span<const WebFile> web_files();

// The page at "/" and its parts under "/web/", open to everybody: they hold nothing of the
// server's. What the page asks for goes through the usual routes and their keys.
void add_web_routes(Router& router);

}  // namespace braid::server
