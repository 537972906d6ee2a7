// swift-tools-version:5.9
// Compiled nowhere yet. With the core as a shared library:
//   swift build -Xcc -I../native/include -Xlinker -LFOLDER_OF_LIBFORERUN
// For an app, an XCFramework of the core takes the place of CForerun: a binaryTarget whose headers are shim.h,
// module.modulemap without its link line, and forerun/*.h.
import PackageDescription

let package = Package(
    name: "Forerun",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "Forerun", targets: ["Forerun"])],
    targets: [
        .systemLibrary(name: "CForerun", path: "CForerun"),
        .target(name: "Forerun", dependencies: ["CForerun"], path: "Sources/Forerun"),
    ]
)
