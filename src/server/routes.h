#pragma once

#include "server/http/router.h"

namespace braid::server {

struct Services;

// Each adds its part of the routes. `services` must outlive the router.
void add_generation_routes(Router& router, Services& services);  // completions, chat, generate
void add_model_routes(Router& router, Services& services);       // models, health, version, info
void add_text_routes(Router& router, Services& services);        // tokenize and back
void add_adapter_routes(Router& router, Services& services);     // load, unload, list
void add_control_routes(Router& router, Services& services);     // abort, flush, metrics

}  // namespace braid::server
