"""Twenty prompts of different kinds: questions, lists, code, copying, arithmetic, other languages."""

PROMPTS = (
    "What is the tallest mountain in the world, and how was its height measured?",
    "Write a short story about a lighthouse keeper who finds a message in a bottle.",
    "List the planets of the solar system in order, one a line.",
    "Write a Python function that returns the n-th Fibonacci number.",
    "Repeat this sentence three times: the quick brown fox jumps over the lazy dog.",
    "Correct the spelling: I recieved you're leter yesterday and red it imediately.",
    "If a train travels 60 miles in 90 minutes, what is its average speed? Show the steps.",
    "Translate into French: Good morning, where is the train station?",
    "Summarize: Water evaporates from the sea, rises as vapour, condenses into clouds and falls as rain, which runs "
    "back to the sea through rivers. The cycle is driven by the heat of the sun.",
    "Give me a recipe for tomato soup with six ingredients at most.",
    "Explain recursion to a ten-year-old.",
    "Write an SQL query that counts the orders of each customer in 2024.",
    "What are the advantages and disadvantages of working from home?",
    "Write a polite email asking for a two-day extension of a deadline.",
    "Sort these numbers and print them as a JSON list: 42, 7, 19, 3, 88, 5.",
    "Who wrote Pride and Prejudice, and what is it about?",
    "Complete the proverb and explain it: A stitch in time",
    "Write a haiku about autumn rain.",
    "def quicksort(items):\n    # finish this function\n",
    "Name three differences between a virus and a bacterium. ¿Y cómo se dice 'bacterium' en español? 🦠",
)
