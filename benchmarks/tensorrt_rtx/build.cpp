// Parses an ONNX graph strongly typed and builds it with TensorRT-RTX, which needs no GPU for that.
//
//   build GRAPH.onnx [NAME=MIN,OPT,MAX ...] [-- NAME=MIN,OPT,MAX ...]
//
// Sizes are written as 1x8x16; "--" begins another profile. Prints one line of JSON. Exit code 0 if it was built,
// 1 if the parser refused it, 2 if the builder did.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <string>

#include "NvInfer.h"
#include "NvOnnxParser.h"

using namespace nvinfer1;

extern "C" void* createInferBuilder_INTERNAL(void*, int) noexcept;
extern "C" void* createNvOnnxParser_INTERNAL(void*, void*, int) noexcept;
extern "C" int getNvOnnxParserVersion() noexcept;
extern "C" int getInferLibVersion() noexcept;

namespace {

class Errors : public ILogger {
  public:
    void log(Severity severity, char const* message) noexcept override {
        if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", message);
    }
};

Dims sizes(std::string const& text) {
    Dims dims{};
    std::stringstream stream(text);
    for (std::string part; std::getline(stream, part, 'x');) dims.d[dims.nbDims++] = std::atoll(part.c_str());
    return dims;
}

bool set(IOptimizationProfile& profile, std::string const& argument) {
    auto const equals = argument.find('=');
    auto const name = argument.substr(0, equals), spans = argument.substr(equals + 1);
    auto const first = spans.find(','), last = spans.rfind(',');
    return profile.setDimensions(name.c_str(), OptProfileSelector::kMIN, sizes(spans.substr(0, first))) &&
           profile.setDimensions(name.c_str(), OptProfileSelector::kOPT,
                                 sizes(spans.substr(first + 1, last - first - 1))) &&
           profile.setDimensions(name.c_str(), OptProfileSelector::kMAX, sizes(spans.substr(last + 1)));
}

}  // namespace

int main(int count, char** arguments) {
    Errors errors;
    auto* builder = static_cast<IBuilder*>(createInferBuilder_INTERNAL(&errors, getInferLibVersion()));
    if (builder == nullptr) return 3;
    auto const typed = 1U << static_cast<unsigned>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
    auto* network = builder->createNetworkV2(typed);
    auto* parser = static_cast<nvonnxparser::IParser*>(
        createNvOnnxParser_INTERNAL(network, &errors, getNvOnnxParserVersion()));
    bool const parsed = parser->parseFromFile(arguments[1], static_cast<int>(ILogger::Severity::kERROR));
    for (int i = 0; i < parser->getNbErrors(); ++i) {
        auto const* error = parser->getError(i);
        std::fprintf(stderr, "%s (%s): %s\n", error->nodeName(), error->nodeOperator(), error->desc());
    }
    size_t bytes = 0;
    if (parsed) {
        auto* config = builder->createBuilderConfig();
        IOptimizationProfile* profile = nullptr;
        for (int i = 2; i < count; ++i) {
            bool const next = std::strcmp(arguments[i], "--") == 0;
            if (profile == nullptr || next) {
                if (profile != nullptr) config->addOptimizationProfile(profile);
                profile = builder->createOptimizationProfile();
            }
            if (!next && !set(*profile, arguments[i])) std::fprintf(stderr, "profile: %s\n", arguments[i]);
        }
        if (profile != nullptr) config->addOptimizationProfile(profile);
        if (auto* plan = builder->buildSerializedNetwork(*network, *config)) bytes = plan->size();
    }
    std::printf("{\"version\": %d, \"parsed\": %s, \"layers\": %d, \"plan_bytes\": %zu}\n", getInferLibVersion(),
                parsed ? "true" : "false", network->getNbLayers(), bytes);
    return !parsed ? 1 : bytes == 0 ? 2 : 0;
}
