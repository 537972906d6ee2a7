// Chat messages as the text that a model was trained to read, from the pieces of its template.
#ifndef FORERUN_CHAT_H
#define FORERUN_CHAT_H

#include "text/buffer.h"
#include "text/text_file.h"

namespace forerun {

// Appends the prompt for messages; compiler/text/chat_pieces.py is the definition (`ChatPieces.prompt`).
Status add_prompt(const TextFile& file, const forerun_message* messages, int32_t count, Buffer<char>* prompt);

}  // namespace forerun

#endif
