"""Sentences for synthetic voices, written for this project, and numbers, which every voice reads in its language."""

from pathlib import Path

import numpy as np

SENTENCES = {
    "en": "Good morning, how are you today? | The train leaves at half past nine. | "
    "I never heard that sound before! | Please wait, someone will answer soon. | "
    "Yesterday it rained all afternoon. | Stop! Do not open the door. | She plays the violin and he sings. | "
    "We found three small birds under the roof. | What a wonderful idea. | Yes. | No.",
    "de": "Guten Morgen, wie geht es dir? | Der Zug fährt um halb zehn ab. | So etwas habe ich noch nie gehört! | "
    "Bitte warten Sie einen Augenblick. | Gestern hat es den ganzen Tag geregnet. | "
    "Halt! Mach die Tür nicht auf. | Im Garten singen früh die Vögel. | "
    "Das ist wirklich eine schöne Überraschung. | Ja. | Nein.",
    "fr": "Bonjour, comment allez-vous ? | Le train part à neuf heures et demie. | Je n'ai jamais entendu cela ! | "
    "Veuillez patienter un instant. | Hier, il a plu toute la journée. | Arrêtez ! N'ouvrez pas la porte. | "
    "Les enfants jouent dans le jardin. | Quelle bonne surprise. | Oui. | Non.",
    "es": "Buenos días, ¿cómo está usted? | El tren sale a las nueve y media. | ¡Nunca había oído ese ruido! | "
    "Espere un momento, por favor. | Ayer llovió toda la tarde. | ¡Alto! No abras la puerta. | "
    "Los niños juegan en el jardín. | Qué buena idea. | Sí. | No.",
    "it": "Buongiorno, come sta? | Il treno parte alle nove e mezza. | Non ho mai sentito questo rumore! | "
    "Attenda un momento, per favore. | Ieri ha piovuto tutto il giorno. | Ferma! Non aprire la porta. | "
    "I bambini giocano nel giardino. | Che bella sorpresa. | Si. | No.",
    "pt": "Bom dia, como está? | O comboio parte às nove e meia. | Nunca ouvi esse barulho! | "
    "Espere um momento, por favor. | Ontem choveu a tarde toda. | Pare! Não abra a porta. | "
    "As crianças brincam no jardim. | Sim. | Não.",
    "nl": "Goedemorgen, hoe gaat het met u? | De trein vertrekt om half tien. | "
    "Dat geluid heb ik nog nooit gehoord! | Wacht alstublieft een ogenblik. | "
    "Gisteren heeft het de hele dag geregend. | Stop! Doe de deur niet open. | Ja. | Nee.",
    "pl": "Dzień dobry, jak się pan ma? | Pociąg odjeżdża o wpół do dziesiątej. | "
    "Nigdy nie słyszałem takiego dźwięku! | Proszę chwilę poczekać. | Wczoraj cały dzień padało. | "
    "Stój! Nie otwieraj drzwi. | Tak. | Nie.",
    "cs": "Dobré ráno, jak se máte? | Vlak odjíždí v půl desáté. | Takový zvuk jsem ještě neslyšel! | "
    "Počkejte prosím chvíli. | Včera celý den pršelo. | Stůj! Neotvírej dveře. | Děti si hrají na zahradě. | "
    "Ano. | Ne.",
    "ru": "Доброе утро, как дела? | Поезд отходит в половине десятого. | Я никогда не слышал такого звука! | "
    "Пожалуйста, подождите немного. | Вчера весь день шёл дождь. | Стой! Не открывай дверь. | Да. | Нет.",
    "sv": "God morgon, hur mår du? | Tåget går klockan halv tio. | Jag har aldrig hört det ljudet! | "
    "Var god vänta ett ögonblick. | Det regnade hela dagen i går. | Stopp! Öppna inte dörren. | Ja. | Nej.",
    "fi": "Hyvää huomenta, mitä kuuluu? | Juna lähtee puoli kymmeneltä. | En ole koskaan kuullut tuota ääntä! | "
    "Odottakaa hetki, olkaa hyvä. | Eilen satoi koko päivän. | Seis! Älä avaa ovea. | Kyllä. | Ei.",
    "tr": "Günaydın, nasılsınız? | Tren dokuz buçukta kalkıyor. | Bu sesi hiç duymamıştım! | "
    "Lütfen biraz bekleyin. | Dün bütün gün yağmur yağdı. | Dur! Kapıyı açma. | Evet. | Hayır.",
    "el": "Καλημέρα, τι κάνετε; | Το τρένο φεύγει στις εννιάμισι. | Περιμένετε λίγο, παρακαλώ. | "
    "Χθες έβρεχε όλη μέρα. | Μην ανοίξεις την πόρτα! | Ναι. | Όχι.",
    "hu": "Jó reggelt, hogy van? | A vonat fél tízkor indul. | Ilyen hangot még nem hallottam! | "
    "Kérem, várjon egy kicsit. | Tegnap egész nap esett az eső. | Állj! Ne nyisd ki az ajtót. | Igen. | Nem.",
    "hi": "नमस्ते, आप कैसे हैं? | गाड़ी नौ बजे चलती है। | कृपया थोड़ा रुकिए। | कल दिन भर बारिश हुई। | दरवाज़ा मत खोलो! | हाँ। | नहीं।",
    "cmn": "早上好，你好吗？ | 火车九点半开。 | 请等一下。 | 昨天下了一整天雨。 | 不要开门！ | 是。 | 不是。",
}
LANGUAGES = tuple(SENTENCES)


def sentence(language: str, draw: np.random.Generator) -> str:
    """A sentence, two, or one with a number, or a number alone."""
    choice = SENTENCES[language].split(" | ")
    words = [str(draw.choice(choice)).strip()]
    kind = draw.random()
    if kind < 0.35:
        words.append(str(draw.choice(choice)).strip())
    elif kind < 0.6:
        words.append(f"{draw.integers(0, 10 ** int(draw.integers(1, 5)))}.")
    elif kind < 0.75:
        words = [" ".join(str(number) for number in draw.integers(0, 100, int(draw.integers(1, 5))))]
    return " ".join(words)


def words(known: list[str], draw: np.random.Generator) -> str:
    """One to four words, most often one."""
    count = int(draw.choice([1, 1, 1, 2, 3, 4]))
    return " ".join(str(word) for word in draw.choice(known, count))


def read_words(path: Path) -> list[str]:
    """The words of a list, without names and genitives."""
    lines = path.read_text(encoding="utf-8").split()
    return [word for word in lines if len(word) > 1 and word.isascii() and word.isalpha() and word.islower()]
