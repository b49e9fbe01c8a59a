"""Pairs of real LRAT runs, worked out by hand."""

# Worked out by hand from the files: the searches' DocID lines from the browse backwards to the
# last relevant browse, without the positive and without doubles. (file, browse_seq, rank, query,
# positive, negatives)
EXPECTED = [
    (
        "1.json",
        3,
        1,
        "Czech historian born in Valašské Klobouky Ladislav Zdeněk brother",
        "9358159",
        "2690620 5992926 1675639 5601468 3896914 5406386 1888799 7177735 10121870",
    ),
    (
        "11.json",
        7,
        2,
        "Genting Highlands casino theme park",
        "817793",
        "817795 817794 3628727 3095462 1614789 265819 1582361 3594471 10278648 "
        "8027957 3708928 2939459 2939458 2909990 9892872 10301476 809289 "
        "1582362 1582359 2781055 6497358 1582360 1582363 4808454 6497359",
    ),
    (
        "14.json",
        3,
        2,
        "Donald Trump paid damages misuse of charity funds amount",
        "8513781",
        "8513784 9318018 8513782 8513779 8408192 8513787 8513778 2579753 8513788",
    ),
    (
        "14.json",
        7,
        8,
        "Trump charity foundation $2 million damages November 2019 settlement",
        "8577606",
        "1648545 8513778 8513781 2579753 8513792 9235199 9318018 3197672 3197673",
    ),
    (
        "14.json",
        13,
        2,
        "New York attorney general lawsuit Trump Foundation settlement November 2019 "
        "$2 million damages",
        "8513792",
        "9318018 1648545 1521716 8513778 8548971 7649800 2579753 2967811 8408190 "
        "1196510 6200725 9120524 8513781 2289761 8513788 1329962",
    ),
    (
        "15.json",
        3,
        2,
        "Mexican telecommunications company owned by Carlos Slim America Movil telephone "
        "internet services since 1981",
        "2374680",
        "879770 2426694 3640551 8494251 2539105 74546 8154829 959138 959140",
    ),
    (
        "15.json",
        7,
        1,
        "Telnor America Movil owned",
        "2374680",
        "7307682 7307683 1605390 3098646 879771 1571664 3524583 2426695 8154829",
    ),
    (
        "15.json",
        11,
        2,
        '"since 1981" "telephone" "internet" Mexico',
        "2374675",
        "229790 74546 879770 1937267 107121 228337 6850901 1426863 3711596",
    ),
]
